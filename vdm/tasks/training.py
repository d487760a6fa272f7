"""Which frames of a training clip are given: distributions over tasks, of which every clip of every step draws one.

    distribution = RandomFrames(most=4, unconditional=0.25)
    positions, given = jax.vmap(lambda key: distribution.draw(key, num_frames))(keys)      # [batch, seen frames]

To add a distribution, write it and add it to the table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from vdm.tasks.completion import Task
from vdm.types import Key

Drawn = tuple[Int[Array, "seen"], Bool[Array, "seen"]]  # the frames of a clip that the network sees, rising; given?


@runtime_checkable
class TaskDistribution(Protocol):
    """Draws a task; some frame of each is wanted.

    Attributes:
      gives: whether frames are ever given, or left out.
    """

    gives: ClassVar[bool]

    def check(self, num_frames: int) -> None:
        """Raises ValueError for clips of another length than it can draw from."""
        ...

    def seen(self, num_frames: int) -> int:
        """How many frames of a clip the network sees at a time."""
        ...

    def draw(self, key: Key, num_frames: int) -> Drawn:
        """A task on a clip of `num_frames` frames."""
        ...

    def draws(self, task: Task) -> bool:
        """Whether the task is among those that it draws of clips of this length."""
        ...


@dataclasses.dataclass(frozen=True)
class Generation:
    """Nothing is given, ever."""

    gives: ClassVar[bool] = False

    def check(self, num_frames: int) -> None:
        pass

    def seen(self, num_frames: int) -> int:
        return num_frames

    def draw(self, key: Key, num_frames: int) -> Drawn:
        return jnp.arange(num_frames), jnp.zeros(num_frames, bool)

    def draws(self, task: Task) -> bool:
        return not task.given


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The first `num_given` frames, always."""

    num_given: int

    gives: ClassVar[bool] = True

    def check(self, num_frames: int) -> None:
        _require_room("task.prediction.num_given", self.num_given, num_frames)

    def seen(self, num_frames: int) -> int:
        return num_frames

    def draw(self, key: Key, num_frames: int) -> Drawn:
        index = jnp.arange(num_frames)
        return index, index < self.num_given

    def draws(self, task: Task) -> bool:
        return task.given == tuple(range(self.num_given))


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The first frames and the last ones, each block given or not by itself (MCVD: Voleti et al. 2022, arXiv
    2205.09853). A block that is not given is wanted with the rest, where MCVD shows zeros and leaves it out of the
    loss: so one network also makes whole clips.

    Attributes:
      num_past, num_future: frames of the blocks.
      probability: that a block is given (MCVD: 1/2).
    """

    num_past: int
    num_future: int
    probability: float

    gives: ClassVar[bool] = True

    def check(self, num_frames: int) -> None:
        if min(self.num_past, self.num_future) < 0:
            raise ValueError(f"task.blocks has num_past {self.num_past}, num_future {self.num_future}; give 0 or more")
        _require_room("task.blocks: num_past + num_future", self.num_past + self.num_future, num_frames)
        _require_share("task.blocks.probability", self.probability)

    def seen(self, num_frames: int) -> int:
        return num_frames

    def draw(self, key: Key, num_frames: int) -> Drawn:
        index = jnp.arange(num_frames)
        past, future = jax.random.bernoulli(key, self.probability, (2,))
        return index, (past & (index < self.num_past)) | (future & (index >= num_frames - self.num_future))

    def draws(self, task: Task) -> bool:
        past, end = set(range(self.num_past)), task.num_frames
        future, given = set(range(end - self.num_future, end)), set(task.given)
        some = {0.0: [set()], 1.0: [past | future]}.get(self.probability, [set(), past, future, past | future])
        return given in some


@dataclasses.dataclass(frozen=True)
class RandomFrames:
    """Any frames, 1 to `most` of them with equal chances (RaMViD: Hoeppe et al. 2022, arXiv 2206.07696).

    Attributes:
      unconditional: probability that none is given.
    """

    most: int
    unconditional: float

    gives: ClassVar[bool] = True

    def check(self, num_frames: int) -> None:
        _require_room("task.random_frames.most", self.most, num_frames)
        _require_share("task.random_frames.unconditional", self.unconditional)

    def seen(self, num_frames: int) -> int:
        return num_frames

    def draw(self, key: Key, num_frames: int) -> Drawn:
        none, number, order = jax.random.split(key, 3)
        count = jax.random.randint(number, (), 1, self.most + 1)
        count = jnp.where(jax.random.bernoulli(none, self.unconditional), 0, count)
        return jnp.arange(num_frames), jax.random.permutation(order, num_frames) < count

    def draws(self, task: Task) -> bool:
        count = len(task.given)
        return self.unconditional > 0 if count == 0 else count <= self.most and self.unconditional < 1


@dataclasses.dataclass(frozen=True)
class AnySubset:
    """`num_seen` frames of a longer clip in groups, each given or wanted (FDM: Harvey et al. 2022, arXiv 2205.11495,
    algorithm 2): a group has 1 to `num_seen` frames, an even spacing whose logarithm is uniform, and a random place.
    The first group is wanted, the others with probability 1/2, and the last one is cut to what is left, where FDM's
    code leaves it out and shows fewer frames.
    """

    num_seen: int

    gives: ClassVar[bool] = True

    def check(self, num_frames: int) -> None:
        if not 1 <= self.num_seen <= num_frames:
            raise ValueError(f"task.any_subset.num_seen is {self.num_seen}; it must be in [1, {num_frames}]")

    def seen(self, num_frames: int) -> int:
        return self.num_seen

    def draw(self, key: Key, num_frames: int) -> Drawn:
        def add(carry: tuple[Key, Bool[Array, "frames"], Bool[Array, "frames"]]) -> tuple[Key, Array, Array]:
            key, taken, given = carry
            key, of_group, of_kind = jax.random.split(key, 3)
            new = self._group(of_group, num_frames) & ~taken
            new &= jnp.cumsum(new) <= self.num_seen - taken.sum()
            is_given = taken.any() & jax.random.bernoulli(of_kind)
            return key, taken | new, given | (new & is_given)

        none = jnp.zeros(num_frames, bool)
        _, taken, given = jax.lax.while_loop(lambda carry: carry[1].sum() < self.num_seen, add, (key, none, none))
        positions = jnp.nonzero(taken, size=self.num_seen)[0]
        return positions, given[positions]

    def draws(self, task: Task) -> bool:
        return task.num_frames == self.num_seen

    def _group(self, key: Key, num_frames: int) -> Bool[Array, "frames"]:
        number, spacing, place = jax.random.split(key, 3)
        count = jax.random.randint(number, (), 1, self.num_seen + 1)
        gaps = count - 1
        widest = jnp.log(num_frames / jnp.maximum(gaps, 1))
        step = jnp.where(gaps > 0, jnp.exp(jax.random.uniform(spacing) * widest), 0.0)
        first = jax.random.uniform(place) * (num_frames - step * gaps)
        nth = jnp.arange(self.num_seen)
        frames = jnp.floor(first + step * nth).astype(jnp.int32)
        return jnp.zeros(num_frames, bool).at[jnp.where(nth < count, frames, num_frames)].set(True, mode="drop")


def _require_room(name: str, number: int, num_frames: int) -> None:
    if not 1 <= number < num_frames:
        raise ValueError(f"{name} is {number}; of clips of {num_frames} frames give 1 to {num_frames - 1}")


def _require_share(name: str, share: float) -> None:
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"{name} is {share:g}; it must be in [0, 1]")


DISTRIBUTIONS: dict[str, Callable[..., TaskDistribution]] = {
    "generation": Generation,
    "prediction": Prediction,
    "blocks": Blocks,
    "random_frames": RandomFrames,
    "any_subset": AnySubset,
}
