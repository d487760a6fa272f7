"""Clips longer than what a network sees, by a plan: window after window, in bounded memory.

for frames in extended(plan, observed, draw): writer.add(frames)       # in the clip's order, as soon as they are made
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float

from vdm.tasks.completion import Task
from vdm.tasks.plans import Plan, frames_of

Frames = Float[np.ndarray, "batch _frames height width channels"]
Draw = Callable[[int, Task, Frames], Frames]


def extended(plan: Plan, observed: Frames, draw: Draw) -> Iterator[Frames]:
    """The clip's frames in their order, observed ones too, in pieces.

    A frame is held until it was handed out and no later window is given it: of a plan whose windows are given what lies
    near, as many as a window has, whatever the length of the clip.

    Args:
      observed: the frames of `plan.observed`, in that order; of no frames where there are none: it tells the shape.
      draw: (number of the window, its task, its clip with zeros in wanted frames) -> its clip. Given frames are taken
        from what there was, not from what it returns.

    Raises:
      ValueError: other frames than the plan's.
    """
    if observed.shape[1] != len(plan.observed):
        raise ValueError(f"the plan observes frames {plan.observed}, and {observed.shape[1]} frames were handed over")
    last_use = {frame: number for number, task in enumerate(plan.tasks) for frame in frames_of(task, task.given)}
    held = {frame: observed[:, index] for index, frame in enumerate(plan.observed)}
    blank = np.zeros((observed.shape[0], *observed.shape[2:]), observed.dtype)
    next_frame = 0

    def ready(number: int) -> Iterator[Frames]:
        """What can be handed out after a window; drops what nobody needs."""
        nonlocal next_frame
        first = next_frame
        while next_frame in held:
            next_frame += 1
        if next_frame > first:
            yield np.stack([held[frame] for frame in range(first, next_frame)], axis=1)
        for frame in [frame for frame in held if frame < next_frame and last_use.get(frame, -1) <= number]:
            del held[frame]

    yield from ready(-1)
    for number, task in enumerate(plan.tasks):
        given = set(task.given)
        clip = [held[frame] if index in given else blank for index, frame in enumerate(task.positions)]
        shown = np.stack(clip, axis=1)
        made = np.asarray(draw(number, task, shown))
        if made.shape != shown.shape:
            raise ValueError(f"window {number} of shape {shown.shape} came back as {made.shape}; return all its frames")
        for index in task.wanted:
            held[task.positions[index]] = made[:, index].copy()  # a view would hold the window
        yield from ready(number)
