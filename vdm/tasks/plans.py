"""Clips longer than what the network sees at a time: which frames are made in which order, given which others.

    plan = autoregression(num_frames=64, num_observed=4, window=16, num_new=8)
    for task in plan.tasks: ...             # task.positions: the frames that the network sees; some given, some wanted
    print(plan)                             # a row for every window

Every frame is made once and observed frames never; a window is given frames that were observed or made before it. The
schemes are those of Harvey et al. 2022 (FDM, arXiv 2205.11495). Here a window is given more, as far as there are some,
where it has fewer frames to make, and so all but the first windows have one length; one that is given a single frame is
given the last; and a window of a hierarchy that has no room for a frame on both sides makes fewer at the same spacing,
where FDM's code spaces them anew.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from vdm.tasks.completion import Task

MADE, GIVEN, DONE, ABSENT = "#", "o", "-", "."  # a frame in a row of the drawing


@dataclasses.dataclass(frozen=True)
class Plan:
    """Tasks in the order in which they are done.

    Attributes:
      num_frames: of the whole clip.
      observed: its frames that are known before.
      tasks: windows, whose positions are frames of the clip.

    Raises:
      ValueError: a frame that is made twice, made though it was observed, never made, or given before there is one.
    """

    num_frames: int
    observed: tuple[int, ...]
    tasks: tuple[Task, ...]

    def __post_init__(self) -> None:
        done = set(self.observed)
        if not done <= set(range(self.num_frames)):
            raise ValueError(f"frames {self.observed} are observed of a clip of {self.num_frames} frames")
        for number, task in enumerate(self.tasks):
            given, wanted = (set(frames_of(task, part)) for part in (task.given, task.wanted))
            faults = {"gives frames that nobody made": given - done, "makes frames again": wanted & done}
            for fault, frames in faults.items():
                if frames:
                    raise ValueError(f"window {number} of the plan {fault}: {sorted(frames)}")
            done |= wanted
        if not self.tasks or len(self.observed) != len(set(self.observed)):
            raise ValueError(
                f"a plan makes one frame or more and observes each once; this one observes {self.observed}"
            )
        if done != set(range(self.num_frames)):
            lacking = sorted(set(range(self.num_frames)) ^ done)
            raise ValueError(f"of a clip of {self.num_frames} frames the plan's windows leave {lacking} out of place")

    @property
    def window(self) -> int:
        """The most frames that the network sees at a time."""
        return max(task.num_frames for task in self.tasks)

    def frames_seen(self) -> int:
        """How many frames the network is shown in all, given or made: what the clip costs."""
        return sum(task.num_frames for task in self.tasks)

    def __str__(self) -> str:
        """A row for every window: which frames are made (#), given (o), done (-) and still absent (.)."""
        done, rows = set(self.observed), []
        for task in self.tasks:
            row = [DONE if frame in done else ABSENT for frame in range(self.num_frames)]
            for mark, part in ((GIVEN, task.given), (MADE, task.wanted)):
                for frame in frames_of(task, part):
                    row[frame] = mark
            done.update(frames_of(task, task.wanted))
            rows.append("".join(row))
        seen, windows = self.frames_seen(), len(self.tasks)
        made = self.num_frames - len(self.observed)
        return "\n".join([*rows, f"{windows} windows, {seen} frames seen to make {made} ({seen / made:.2f} times)"])


def frames_of(task: Task, part: Iterable[int]) -> tuple[int, ...]:
    """The frames of the clip that a task's indices mean."""
    return tuple(task.positions[index] for index in part)


def autoregression(num_frames: int, num_observed: int, window: int, num_new: int) -> Plan:
    """Every window makes the `num_new` frames after the last ones, given the frames before them.

    Args:
      num_frames: of the whole clip.
      num_observed: of its first frames; 0: the first window is given nothing.
      window: frames that the network sees at a time.
      num_new: frames that a window makes, but for a first one that is given nothing and makes all of its own.

    Raises:
      ValueError: a clip that is not longer than what is observed, or a window that makes all or none of its frames.
    """
    return _onward(num_frames, num_observed, window, num_new, lambda done, number: done[-number:])


def long_range(num_frames: int, num_observed: int, window: int, num_new: int) -> Plan:
    """As `autoregression`, but half of the frames that a window is given are the last of those that were observed (or
    made by the first window, where nothing was), for as long as the clip goes on.
    """
    anchors = range(num_observed or window)

    def given(done: Sequence[int], number: int) -> Sequence[int]:
        recent = done[-max(number // 2, 1) :]
        old = _last([frame for frame in anchors if frame not in recent], number - len(recent))
        rest = [frame for frame in done if frame not in recent and frame not in old]
        return sorted([*old, *_last(rest, number - len(recent) - len(old)), *recent])

    return _onward(num_frames, num_observed, window, num_new, given)


def hierarchy(num_frames: int, num_observed: int, window: int, num_new: int, num_levels: int) -> Plan:
    """First frames over the whole clip, evenly spaced; then, level by level, the frames between, down to neighbours.

    The spacing of level l of n is ((frames to make) / (num_new - 1))^((n - l) / (n - 1)), as FDM's code has it. The
    first level is one window, given observed frames, evenly spaced where not all fit; a later one is given all done
    frames between those that it makes and the nearest on both sides, half after them and the rest before.

    Args:
      num_levels: 2 or more; the last makes neighbours.

    Raises:
      ValueError: as `autoregression`; or fewer levels or new frames than 2.
    """
    _check(num_frames, num_observed, window, num_new)
    if num_levels < 2 or num_new < 2:  # a window has more frames than it makes: 3 or more
        raise ValueError(f"a hierarchy needs 2 levels and 2 new frames in a window; got {num_levels} and {num_new}")
    tasks = [_first_of_hierarchy(num_frames, num_observed, window, num_new)]
    done = {*range(num_observed), *tasks[0].positions}
    widest = max(num_frames - (num_observed or window), 1) / (num_new - 1)
    for level in range(2, num_levels + 1):
        spacing = int(widest ** ((num_levels - level) / (num_levels - 1)))
        for wanted in _apart(sorted(set(range(num_frames)) - done), spacing, num_new, window, done):
            tasks.append(_between(wanted, done, window))
            done.update(wanted)
    return Plan(num_frames, tuple(range(num_observed)), tuple(tasks))


def _first_of_hierarchy(num_frames: int, num_observed: int, window: int, num_new: int) -> Task:
    if num_observed == 0:
        return _task((), sorted(set(np.linspace(0, num_frames - 1, window).astype(int).tolist())))
    wanted = _spread(num_observed, num_frames, num_new)
    return _task(_spread(0, num_observed, min(window - len(wanted), num_observed)), wanted)


def _spread(first: int, end: int, number: int) -> list[int]:
    """Frames of [first, end), evenly spaced, both ends among them; the last where it is to be one."""
    return sorted(set(np.linspace(end - 1e-3, first, number).astype(int).tolist()))


def _apart(absent: Sequence[int], spacing: int, num_new: int, window: int, done: set[int]) -> Iterator[list[int]]:
    """Absent frames that lie `spacing` apart or more, `num_new` at a time; fewer, where with what is done between them
    a window would have no room for a frame on both sides. `done` grows meanwhile.
    """
    group: list[int] = []
    place = min(absent, default=0) - 1 + spacing
    for frame in absent:
        if frame < place:
            continue
        if group and len(group) + 1 + sum(group[0] < each < frame for each in done) > window - 2:
            yield group
            group = []
        group.append(frame)
        place = frame + spacing
        if len(group) == num_new:
            yield group
            group = []
    if group:
        yield group


def _between(wanted: Sequence[int], done: set[int], window: int) -> Task:
    """Those, given what is done between and around them."""
    first, last = wanted[0], wanted[-1]
    before, between, after = (
        [frame for frame in sorted(done) if start < frame < end]
        for start, end in ((-1, first), (first, last), (last, math.inf))
    )
    room = window - len(wanted) - len(between)
    num_before = min(max(room - room // 2, room - len(after)), len(before))
    before, after = before[len(before) - num_before :], after[: room - num_before]
    return _task(sorted([*before, *between, *after]), wanted)


def _onward(
    num_frames: int, num_observed: int, window: int, num_new: int, given: Callable[[Sequence[int], int], Sequence[int]]
) -> Plan:
    """Windows that follow each other; `given(done, number)` are the frames that one is given."""
    _check(num_frames, num_observed, window, num_new)
    done = list(range(num_observed))
    tasks = []
    while len(done) < num_frames:
        wanted = range(len(done), min(len(done) + (num_new if done else window), num_frames))
        tasks.append(_task(given(done, min(window - len(wanted), len(done))) if done else (), wanted))
        done += wanted
    return Plan(num_frames, tuple(range(num_observed)), tuple(tasks))


def _last(frames: Sequence[int], number: int) -> Sequence[int]:
    return frames[len(frames) - min(number, len(frames)) :]


def _check(num_frames: int, num_observed: int, window: int, num_new: int) -> None:
    if not 0 <= num_observed < num_frames:
        raise ValueError(f"{num_observed} of {num_frames} frames are observed; leave one or more to be made")
    if not 1 <= num_new < window:
        raise ValueError(
            f"a window of {window} frames is to make {num_new}; give 1 to {window - 1}, the others are given to it"
        )


def _task(given: Sequence[int], wanted: Sequence[int]) -> Task:
    positions = sorted([*given, *wanted])
    place = {frame: index for index, frame in enumerate(positions)}
    return Task(tuple(place[frame] for frame in given), tuple(place[frame] for frame in wanted), tuple(positions))
