"""Completion: of some frames of a clip the content is given, the others are wanted.

    task = prediction(num_given=2, num_frames=8)                         # or infilling, interpolation, ...: index sets
    denoise = completed(denoiser, task.is_given(num_clips), x0)          # what samplers take; x0: any wanted frames
    clip = samplers.sample(denoise, schedule, sampler, times, xT, noise)

Given frames enter the network as they are, with a log-SNR of +inf, and come back unchanged (idea 4 of the design). A
network learns it by `objectives.loss(..., given=...)` with frames drawn as `training` does, and then does every task;
with the exact denoiser every task is sampled from its exact conditional distribution. For a network that never saw
given frames there are `guidance.reconstruction` and `samplers.Replacement`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from vdm.diffusion import process
from vdm.types import Denoiser, Level, Video


@dataclasses.dataclass(frozen=True)
class Task:
    """Index sets into the frames that the network sees at a time.

    Attributes:
      given: frames that are known; empty: a clip is made of nothing.
      wanted: frames to be made; with `given` all frames, each once.
      positions: of every frame in the video, rising; what the network is told as `frame_index`.

    Raises:
      ValueError: nothing is wanted, a frame is in both sets, in none or outside, or positions that do not rise from 0
        or more.
    """

    given: tuple[int, ...]
    wanted: tuple[int, ...]
    positions: tuple[int, ...]

    def __post_init__(self) -> None:
        frames, named = range(len(self.positions)), [*self.given, *self.wanted]
        faults = {
            f"has frames 0 to {len(frames) - 1} alone": not set(named) <= set(frames),
            "wants nothing; give fewer frames": not self.wanted,
            "names a frame twice; each is either given or wanted": len(named) != len(set(named)),
            "leaves frames out; give or want each, or leave out its position": not set(frames) <= set(named),
            "needs positions that rise, from 0 or more": list(self.positions) != sorted(set(self.positions))
            or min(self.positions, default=0) < 0,
        }
        for fault, found in faults.items():
            if found:
                raise ValueError(f"a task that gives {self.given} and wants {self.wanted} at {self.positions} {fault}")

    @property
    def num_frames(self) -> int:
        return len(self.positions)

    def is_given(self, num_clips: int) -> Bool[Array, "num_clips frames"]:
        mask = np.zeros((num_clips, self.num_frames), bool)
        mask[:, list(self.given)] = True
        return jnp.asarray(mask)

    def frame_index(self, num_clips: int) -> Int[Array, "num_clips frames"]:
        return jnp.tile(jnp.asarray(self.positions, jnp.int32), (num_clips, 1))


def chosen(given: Sequence[int], num_frames: int) -> Task:
    """Any frames of `num_frames` in a row; all others are wanted."""
    wanted = tuple(frame for frame in range(num_frames) if frame not in set(given))
    return Task(tuple(given), wanted, tuple(range(num_frames)))


def generation(num_frames: int) -> Task:
    """A clip of nothing."""
    return chosen((), num_frames)


def prediction(num_given: int, num_frames: int) -> Task:
    """What comes after the first frames; with one of them, the animation of a picture."""
    return chosen(range(_some(num_given, "num_given")), num_frames)


def back_prediction(num_given: int, num_frames: int) -> Task:
    """What came before the last frames."""
    return chosen(range(num_frames - _some(num_given, "num_given"), num_frames), num_frames)


def infilling(num_past: int, num_future: int, num_frames: int) -> Task:
    """What lies between the first frames and the last ones."""
    past, future = _some(num_past, "num_past"), _some(num_future, "num_future")
    return chosen((*range(past), *range(num_frames - future, num_frames)), num_frames)


def interpolation(stride: int, num_frames: int) -> Task:
    """What lies between every `stride`-th frame, of which the first is frame 0."""
    if stride < 2:
        raise ValueError(f"interpolation needs a stride of 2 frames or more, got {stride}: between neighbours is none")
    return chosen(range(0, num_frames, stride), num_frames)


def _some(number: int, name: str) -> int:
    if number < 1:
        raise ValueError(f"{name} is {number}; give 1 frame or more, or ask for generation, which is given none")
    return number


def completed(denoiser: Denoiser, given: Bool[Array, "batch frames"], x0: Video) -> Denoiser:
    """E[x0 | wanted frames at their level, given frames as they are], which returns the given frames.

    Args:
      denoiser: that of a network that was trained with given frames.
      given: True for frames whose x0 is known.
      x0: the clean clip; only its given frames are read.
    """

    def denoise(xt: Video, level: Level) -> Video:
        known = process.spread(given)
        return jnp.where(known, x0, denoiser(jnp.where(known, x0, xt), process.without_noise(level, given)))

    return denoise


TASKS = {
    "generation": generation,
    "prediction": prediction,
    "back_prediction": back_prediction,
    "infilling": infilling,
    "interpolation": interpolation,
}
