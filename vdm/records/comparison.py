"""What a report compares: arms with their records and samples, the intervals of their differences, the lines to pass.

Every number comes from a record or from an interval computed on samples; nothing is typed in by hand.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8

from vdm.records import identity, statistics
from vdm.records.record import Metric, Record
from vdm.records.statistics import Interval, Verdict

Clips = UInt8[np.ndarray, "clips frames height width channels"]


@dataclasses.dataclass(frozen=True)
class Arm:
    """One side of the comparison.

    Attributes:
      name: short and unique; comparisons refer to it.
      title, description: for people; the description says in a sentence what is particular to this arm.
      videos: samples to show, 1 or 3 channels; clip i of every arm was drawn from the same noise.
      group: the arm of the grid, for people, where several seeds of it were run; empty: it was run once.
      flops: of the model in all of its training, with nothing computed twice; None: not counted.
    """

    name: str
    title: str
    description: str
    record: Record
    videos: Clips
    flops: float | None = None
    group: str = ""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The difference of a metric, `first` minus `second` (names of arms), with its interval over paired samples.

    It is about two trained networks, so it gives no verdict on what they were trained with: see `OverSeeds`.
    """

    metric: str
    first: str
    second: str
    difference: Interval
    unit: str


@dataclasses.dataclass(frozen=True)
class OverSeeds:
    """The difference of a metric, `first` minus `second` (titles of arms), over several seeds of training.

    Attributes:
      by_seed: the difference of every seed; at least two.
      p_value: of no difference, corrected for all pairs that the report shows (`statistics.holm`); None in a report
        from before there was one, which showed a single pair.
      correlation: of the two arms' values over seeds, where there are at least three: what pairing by seed is worth.
    """

    metric: str
    first: str
    second: str
    by_seed: tuple[float, ...]
    unit: str
    p_value: float | None = None
    correlation: float | None = None

    @property
    def difference(self) -> Interval:
        """The mean with its interval over trainings, which knows of no other pair."""
        return statistics.mean_of_few(np.asarray(self.by_seed))

    @property
    def verdict(self) -> Verdict:
        if self.p_value is None:
            return statistics.verdict(self.difference)
        return "separated" if self.p_value <= 1 - statistics.CONFIDENCE else "not separated"


def paired(
    metric: str, values: Mapping[str, Sequence[float] | Float[np.ndarray, " seeds"]], unit: str
) -> Iterator[OverSeeds]:
    """The differences of every two arms, seed by seed; not yet `corrected`.

    Args:
      values: arm's title -> the metric of each seed, in the same order for all arms.
    """
    for one, two in itertools.combinations(values, 2):
        first, second = np.array(values[one]), np.array(values[two])
        together = statistics.correlation(first, second)
        yield OverSeeds(metric, one, two, tuple((first - second).tolist()), unit, correlation=together)


def corrected(entries: Sequence[OverSeeds]) -> tuple[OverSeeds, ...]:
    """The entries with their p-values corrected for all of them."""
    if not entries:
        return ()
    p_values = statistics.holm(statistics.p_values_of_few(np.array([entry.by_seed for entry in entries])))
    return tuple(dataclasses.replace(entry, p_value=p) for entry, p in zip(entries, p_values, strict=True))


@dataclasses.dataclass(frozen=True)
class Spread:
    """Values of a metric over runs of an arm (its title) that differ in what is drawn anew: a part of `config.vary`, or
    all.
    """

    metric: str
    arm: str
    part: str
    values: tuple[float, ...]
    unit: str

    @property
    def standard_deviation(self) -> float:
        """Over N - 1."""
        return float(np.std(self.values, ddof=1))


@dataclasses.dataclass(frozen=True)
class Tried:
    """A learning rate that was tried.

    Attributes:
      factor: of the arm's own rate.
      losses: average of the parameters (long, short) -> the arm's own loss on the selection split; empty for a run that
        diverged.
    """

    factor: float
    rate: float
    losses: dict[str, float]

    @property
    def best(self) -> float:
        """The lowest of its losses; infinite for a run that diverged."""
        return min(self.losses.values(), default=math.inf)


@dataclasses.dataclass(frozen=True)
class Selection:
    """The learning rates that were tried for an arm (its title), from low to high; at least one did not diverge."""

    arm: str
    tried: tuple[Tried, ...]

    @property
    def chosen(self) -> Tried:
        return min(self.tried, key=lambda one: one.best)

    @property
    def average(self) -> str:
        """The average of the parameters that had the lowest loss."""
        losses = self.chosen.losses
        return min(losses, key=lambda name: losses[name])

    @property
    def is_interior(self) -> bool:
        """Whether a lower and a higher rate were tried and are worse."""
        return self.chosen not in (self.tried[0], self.tried[-1])


@dataclasses.dataclass(frozen=True)
class Healthy:
    """What an earlier comparison of the same arms, over several seeds, looked like.

    Attributes:
      bands: curve name -> (step, low, high) over all its trained runs.
    """

    bands: dict[str, tuple[tuple[int, float, float], ...]] = dataclasses.field(default_factory=dict)
    over_seeds: tuple[OverSeeds, ...] = ()


@dataclasses.dataclass(frozen=True)
class Correlation:
    """How alike two arms' clips are, pixel by pixel: from the same noise, and, to compare with, from different noise.

    Attributes:
      num_clips: pairs that each mean is over; `num_constant` more were left out because a clip of the pair is constant.
    """

    first: str
    second: str
    same_noise: Interval
    other_noise: Interval
    num_clips: int
    num_constant: int


@dataclasses.dataclass(frozen=True)
class PassLine:
    """A line that was drawn before the run:

    `value` of `arm` (its title, or what else was measured) must be on its side of `limit`.
    """

    what: str
    arm: str
    value: float
    relation: Literal[">=", "<="]
    limit: float
    unit: str

    @property
    def passed(self) -> bool:
        return self.value >= self.limit if self.relation == ">=" else self.value <= self.limit


@dataclasses.dataclass(frozen=True)
class Report:
    """A comparison of arms, ready to be written.

    Attributes:
      question: what the comparison asks, and the answer, in a sentence or two.
      command: what makes this report again.
      real: clips of the data, to see what the samples should look like.
      notes: what is shown and what is not ("one seed is a demonstration").
      timings: seconds of the comparison as a whole, by what they were spent on.
      over_seeds: of every two trained arms; empty for a single seed.
      selections: how each arm's learning rate was chosen; empty where the arms keep their own.
      spreads: what another draw of each part of the randomness changes.
      healthy: to compare with: its bands are drawn behind the arms' curves.
    """

    title: str
    question: str
    command: str
    arms: tuple[Arm, ...]
    real: Clips
    comparisons: tuple[Comparison, ...] = ()
    correlations: tuple[Correlation, ...] = ()
    pass_lines: tuple[PassLine, ...] = ()
    notes: tuple[str, ...] = ()
    timings: dict[str, float] = dataclasses.field(default_factory=dict)
    over_seeds: tuple[OverSeeds, ...] = ()
    healthy: Healthy = Healthy()
    selections: tuple[Selection, ...] = ()
    spreads: tuple[Spread, ...] = ()

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"A report needs at least one arm, each with a name of its own; given {names}.")
        for entry in (*self.comparisons, *self.correlations):
            if not {entry.first, entry.second} <= set(names):
                raise ValueError(f"A comparison of {entry.first!r} with {entry.second!r}, but the arms are {names}.")
        shapes = {arm.name: arm.videos.shape[1:] for arm in self.arms} | {"the real clips": self.real.shape[1:]}
        if len(set(shapes.values())) != 1 or self.real.shape[-1] not in (1, 3):
            raise ValueError(f"Clips play in step, so all need one shape, with 1 or 3 channels; given {shapes}.")
        _require_same_protocols(self.arms)


def correlate(first: str, second: str, first_videos: Clips, second_videos: Clips, seed: int) -> Correlation:
    """Pixel correlation of two arms' clips, clip i of both from the same noise; at least 2 that are not constant."""
    same = statistics.pixel_correlation(first_videos, second_videos)
    other = statistics.pixel_correlation(first_videos, np.roll(second_videos, 1, axis=0))
    kept = np.isfinite(same) & np.isfinite(other)
    return Correlation(
        first,
        second,
        same_noise=statistics.mean(same[kept], seed),
        other_noise=statistics.mean(other[kept], seed),
        num_clips=int(kept.sum()),
        num_constant=int((~kept).sum()),
    )


def _require_same_protocols(arms: tuple[Arm, ...]) -> None:
    """Two numbers of one name under two protocols are not two measurements of one thing."""
    seen: dict[str, tuple[Arm, Metric]] = {}
    for arm in arms:
        for metric in arm.record.metrics:
            other, first = seen.setdefault(metric.name, (arm, metric))
            old, new = _comparable(other, first), _comparable(arm, metric)
            if old != new:
                lines = "; ".join(identity.differences(old, new))
                raise ValueError(
                    f"{metric.name!r} of {other.name!r} and of {arm.name!r} have unlike protocols ({lines}). "
                    "Evaluate both under one."
                )


def _comparable(arm: Arm, metric: Metric) -> Mapping[str, Any]:
    """What must agree."""
    protocol = protocol_of(arm, metric)
    return {"protocol": protocol, "unit": metric.unit, "higher_is_better": metric.higher_is_better}


def protocol_of(arm: Arm, metric: Metric) -> Mapping[str, Any]:
    """That of a report, which its arms share. A run measured with its own seed is a repetition of one that was measured
    with its own.
    """
    protocol = dict(metric.protocol)
    if protocol.get("seed") in arm.record.seeds.values():
        protocol["seed"] = "the run's"
    return protocol
