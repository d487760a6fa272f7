"""Which runs are killed how often, how, when, and on what they go on: a function of a seed."""

from __future__ import annotations

import dataclasses
import random
import signal
from typing import Literal

Moment = Literal["start", "step", "save"]
NUM_STEPS = 90
CHECKPOINT_EVERY_STEPS = 4
FURTHEST = 8  # steps of a life before it may be killed; in a save: those until the next one come on top


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a life runs on: forced CPU devices, spread evenly over the processes, and the axes of their mesh."""

    name: str
    num_processes: int
    mesh: tuple[tuple[str, int], ...]

    @property
    def num_devices(self) -> int:
        """Over all processes."""
        total = 1
        for _, size in self.mesh:
            total *= size
        return total


ONE = Setup("one device", 1, (("data", 1),))
FOUR = Setup("data=2, fsdp=2", 1, (("data", 2), ("fsdp", 2)))
FRAMES = Setup("frames=2", 1, (("frames", 2), ("data", 1)))
TWO = Setup("fsdp=4 over two processes", 2, (("fsdp", 4), ("data", 1)))
SETUPS = (ONE, FOUR, FRAMES, TWO)


@dataclasses.dataclass(frozen=True)
class Kill:
    """How a life ends.

    Attributes:
      moment: while it starts (imports, restore, compilation), between saves, or while a save is on its way.
      after_steps: steps of this life before it is due.
      delay: seconds from then on; from the start of the process, where that is the moment.
      victim: the process that gets the signal.
    """

    how: signal.Signals
    moment: Moment
    after_steps: int
    delay: float
    victim: int


@dataclasses.dataclass(frozen=True)
class Case:
    """One run: lives that are killed, and a last one that finishes it.

    Attributes:
      lives: the setup and the end of each.
      last: setup of the life that finishes.
    """

    name: str
    lives: tuple[tuple[Setup, Kill], ...]
    last: Setup
    num_steps: int = NUM_STEPS

    @property
    def same_mesh(self) -> bool:
        """Whether every life has the same devices, so that the end must be that of the uninterrupted run to the bit."""
        return {setup for setup, _ in self.lives} == {self.last}


def campaign(seed: int) -> tuple[Case, ...]:
    """All cases of a seed: 44 kills."""
    draw = random.Random(seed)
    same = [
        Case(f"{setup.name}, {number}", tuple((setup, kill(draw, setup)) for _ in range(kills)), setup)
        for setup, number, kills in ((ONE, 1, 7), (ONE, 2, 7), (FOUR, 1, 7), (FRAMES, 1, 3), (TWO, 1, 5))
    ]
    changing = []
    for number in (1, 2, 3):
        setups = [ONE, FOUR, FRAMES, TWO, ONE, FOUR]
        draw.shuffle(setups)
        lives = tuple((setup, kill(draw, setup)) for setup in setups[:-1])
        changing.append(Case(f"changing devices, {number}", lives, setups[-1]))
    return (*same, *changing)


def kill(draw: random.Random, setup: Setup) -> Kill:
    """A random end. Processes that wait for one that never came are no matter of a kill: they start undisturbed."""
    moments: tuple[Moment, ...] = ("start", "step", "step", "save", "save") if setup.num_processes == 1 else (
        "step", "save",
    )  # fmt: skip
    moment = draw.choice(moments)
    return Kill(
        how=draw.choice((signal.SIGKILL, signal.SIGTERM)),
        moment=moment,
        after_steps=0 if moment == "start" else draw.randint(1, FURTHEST),
        delay=draw.uniform(1.0, 10.0) if moment == "start" else draw.uniform(0.0, 0.2),
        victim=draw.randrange(setup.num_processes),
    )
