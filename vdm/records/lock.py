"""What a lock file pins, and what is installed beside it. A lock is read as text; nothing is installed from it."""

from __future__ import annotations

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from vdm.records import environment


def pinned(text: str, name: str) -> dict[str, str]:
    """Package -> version, for this Python and platform, of a requirements file with one `package==version` a line.

    Raises:
      ValueError: a line that is neither that, with a marker perhaps, nor a comment or hash; a marker that cannot be
        evaluated; `name` is the file's.
    """
    versions = {}
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.partition("#")[0].strip().removesuffix("\\").strip()
        if not line or line.startswith("--hash="):
            continue
        try:
            requirement = Requirement(line)
        except InvalidRequirement as error:
            raise ValueError(f"{name}, line {number}, is {line!r}; a lock has package==version lines.") from error
        pins = [part.version for part in requirement.specifier if part.operator == "=="]
        if requirement.url or len(pins) != 1 or len(requirement.specifier) != 1:
            raise ValueError(f"{name}, line {number}, is {line!r}, which pins no version; a lock has == lines alone.")
        try:
            is_of_here = requirement.marker is None or requirement.marker.evaluate()
        except (UndefinedComparison, UndefinedEnvironmentName) as error:
            raise ValueError(
                f"{name}, line {number}, is {line!r}, whose marker means nothing ({error}); compile the lock anew with "
                "`make lock`, or get the card anew from whom you have it."
            ) from error
        if is_of_here:
            versions[canonicalize_name(requirement.name)] = pins[0]
    return versions


def foreign(pins: dict[str, str]) -> tuple[str, ...]:
    """Packages that are installed here in another version than pinned, or not at all: `jax 0.9.0 (lock: 0.10.2)`."""
    found = {package: environment.version_of(package) for package in pins}
    return tuple(
        f"{package} {found[package]} (lock: {pins[package]})" for package in pins if found[package] != pins[package]
    )
