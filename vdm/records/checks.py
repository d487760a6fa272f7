"""What `python -m vdm check` measured on a machine, `check.json` of a work directory; a run's record takes it up."""

from __future__ import annotations

import dataclasses

from etils import epath

from vdm.records import schema
from vdm.records.environment import Environment

VERSION = 1
FILE_NAME = "check.json"


@dataclasses.dataclass(frozen=True)
class Check:
    """One number that should be small, and the largest that is allowed."""

    name: str
    measured: float
    allowed: float

    @property
    def passed(self) -> bool:
        return self.measured <= self.allowed


@dataclasses.dataclass(frozen=True)
class Checks:
    """All that was measured.

    Attributes:
      time: in UTC, ISO 8601.
      mesh: devices along each axis.
      seconds: that it took, compiling included.
    """

    version: int
    time: str
    mesh: dict[str, int]
    environment: Environment
    checks: tuple[Check, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def read(workdir: epath.PathLike) -> Checks | None:
    """What was measured for a work directory, or None. A broken file, or one of another version, is a ValueError."""
    path = epath.Path(workdir) / FILE_NAME
    return schema.loads(Checks, path.read_text(), str(path), version=VERSION) if path.exists() else None
