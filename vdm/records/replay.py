"""The first steps of a config, done again from nothing: their losses to the last bit, what these depend on, and how two
such stretches compare.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

from vdm.records import statistics
from vdm.records.environment import Environment
from vdm.records.identity import canonical_json
from vdm.records.record import BITS, Metric

VERSION = 1
NUM_STEPS = 20  # that a card holds, and that the tolerance is stated for

# Largest relative difference of a step's loss or gradient norm within `NUM_STEPS` steps, by the network's type of
# compute, on devices of one kind. Measured on CPUs between jax 0.10.2 on Python 3.11 and jax 0.12.0.1 on Python 3.13,
# which .ci/run prints of tests/tiny.py: 2.2e-7 in float32 and 1.9e-3 in bfloat16; with configs/demo.py, and between 1
# and 2 threads, at most 3e-7 and 1e-3. Sums are taken in another order there, and training amplifies what that changes
# (in bfloat16 to 1e-2 after 100 steps): that is why the tolerance ends with the steps. It is 30 and 5 times what was
# seen.
TOLERANCES = {"float32": 1e-5, "bfloat16": 1e-2}

# The same for a whole training, of its losses. What rounding has driven apart is at most as far apart as two seeds:
# among three of configs/demo.py after 11,000 steps (experiments/demo/records/seeds.json) held-out losses are within
# 0.10 and means of 50 steps within 0.07.
WHOLE_TOLERANCE = 0.15

# And of its scores, see `score_tolerance`. Bits/dim: any two of five seeds of a preset of experiments/objectives are at
# most 0.12 apart (records/presets.json); their intervals are over clips, which both have, and say nothing of it.
BITS_TOLERANCE = 0.12

BITWISE = "bitwise equal"
WITHIN = "equal within the stated tolerance"
DIFFERENT = "different"
Verdict = Literal["bitwise equal", "equal within the stated tolerance", "different"]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """All that the numbers of a run depend on.

    Attributes:
      identity_hash: of its config.
      data_fingerprint: of the training split.
      mesh: devices along each axis.
    """

    identity_hash: str
    data_fingerprint: str
    mesh: dict[str, int]
    environment: Environment


@dataclasses.dataclass(frozen=True)
class OfTheRun:
    """How many points of the run's own curve of the loss were passed through, and how well they were met."""

    num_points: int
    verdict: Verdict


@dataclasses.dataclass(frozen=True)
class Replay:
    """What the first steps gave.

    Attributes:
      losses, gradient_norms: of every step from the first on, float32 exactly.
      parameters_sha256: of the parameters after the last of them.
      of_the_run: None where no run was there to be compared with.
    """

    version: int
    inputs: Inputs
    losses: tuple[float, ...]
    gradient_norms: tuple[float, ...]
    parameters_sha256: str
    of_the_run: OfTheRun | None = None

    def first(self, num_steps: int) -> Replay:
        """The losses and norms of fewer steps."""
        return dataclasses.replace(self, losses=self.losses[:num_steps], gradient_norms=self.gradient_norms[:num_steps])


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How well numbers, step by step, agree with those they should be.

    Attributes:
      first: index of the first that is not the same to the last bit; None if all are.
      beyond: index of the first beyond the tolerance; None if none is.
      largest: relative difference of all.
    """

    first: int | None
    beyond: int | None
    largest: float

    @property
    def verdict(self) -> Verdict:
        return DIFFERENT if self.beyond is not None else WITHIN if self.first is not None else BITWISE


@dataclasses.dataclass(frozen=True)
class Compared:
    """One input of two stretches, for people, on a line each. What neither side knows is not the same."""

    name: str
    there: str
    here: str
    same: bool


def agreement(there: Sequence[float], here: Sequence[float], tolerance: float) -> Agreement:
    """Compares as many numbers as both have; what is not finite is beyond every tolerance."""
    pairs = list(zip(there, here, strict=False))
    apart = [relative_difference(*pair) for pair in pairs]
    first = next((index for index, (one, other) in enumerate(pairs) if one != other), None)
    beyond = next((index for index, difference in enumerate(apart) if not difference <= tolerance), None)
    return Agreement(first, beyond, max(apart, default=0.0))


def relative_difference(there: float, here: float) -> float:
    """In units of what it should be; infinite where that is 0 and the other is not."""
    if there == here:
        return 0.0
    return abs(there - here) / abs(there) if there else float("inf")


def both(losses: Agreement, norms: Agreement) -> Agreement:
    """Of losses and gradient norms of the same steps."""
    firsts, beyonds = (
        [index for index in indices if index is not None]
        for indices in ((losses.first, norms.first), (losses.beyond, norms.beyond))
    )
    return Agreement(min(firsts, default=None), min(beyonds, default=None), max(losses.largest, norms.largest))


def score_tolerance(score: Metric, other: float) -> float:
    """How far `other`, a score of the same protocol after a whole training elsewhere, may be from `score`.

    Bits/dim: `BITS_TOLERANCE`. What has an interval over samples, as shares and distances have: sqrt(2) times its half
    on that side, which holds for 95 % of two draws from equally good networks; a training that rounding drove further
    than that is different. The few distances without one (of directions, from 0 to 1): `WHOLE_TOLERANCE`, or that
    much of a value above 1.
    """
    if score.name.startswith(BITS):
        return BITS_TOLERANCE
    low, high = score.low, score.high
    if low is None and score.unit == "%" and "samples" in score.protocol:
        samples = score.protocol["samples"]
        share = statistics.proportion(round(score.value * samples), samples)
        low, high = share.low, share.high
    if low is None or high is None:
        return WHOLE_TOLERANCE * max(1.0, abs(score.value))
    return math.sqrt(2.0) * (high - score.value if other > score.value else score.value - low)


def compare_inputs(there: Inputs, here: Inputs) -> tuple[Compared, ...]:
    """Input by input, in the order in which one should look."""
    old, new = there.environment, here.environment
    rows: dict[str, tuple[Any, Any]] = {
        "config": (there.identity_hash, here.identity_hash),
        "data": (there.data_fingerprint, here.data_fingerprint),
        "code": (_code(old), _code(new)),
        "lock": (old.lock_sha256, new.lock_sha256),
        "versions": _unlike(old.versions, new.versions),
        "devices": (_devices(old), _devices(new)),
        "mesh": (there.mesh, here.mesh),
        "CPU threads": (len(old.affinity), len(new.affinity)),
        "flags": _unlike(old.flags, new.flags),
    }
    return tuple(
        Compared(name, _shown(one), _shown(other), one is not None and one == other)
        for name, (one, other) in rows.items()
    )


def _devices(environment: Environment) -> list[Any]:
    return [environment.platform, environment.num_processes, environment.devices]


def _code(environment: Environment) -> list[str] | None:
    """Commit and changes; None outside a checkout."""
    code = environment.code
    return None if code.commit is None else [part for part in (code.commit, code.diff_sha256) if part is not None]


def _unlike(old: dict[str, str], new: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The entries that differ, of either side."""
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return {name: old[name] for name in names if name in old}, {name: new[name] for name in names if name in new}


def _shown(value: Any) -> str:
    """ASCII on one line: a card is a stranger's, and a terminal obeys some characters."""
    return "not known" if value is None else canonical_json(value)
