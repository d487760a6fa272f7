"""The ladder: sources, rungs with what each metric must answer (stated before any was computed), sizes, and records."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data.sources import moving_shapes, simulated
from experiments.metrics import distortions
from experiments.metrics.distortions import Clips, Distortion

HERE = Path(__file__).parent
NUM_FRAMES, SIZE = 16, 32
SHAPE = {"shapes": ("disk", "square", "triangle"), "colours": ("red", "green", "blue", "yellow"), "radius": 5.0}
NUM_CLIPS = 128  # of each set
NUMBERS = (32, 64, 128)  # clips of each set that a metric is given
METRICS = ("fvd", "kvd", "frame_frechet", "motion")

# The floor: no difference from undistorted clips. Hardly: a smaller one than every blur and noise makes. Open: nothing
# was stated.
Answer = Literal["above", "floor", "hardly", "open"]


@dataclasses.dataclass(frozen=True)
class Source:
    """Clips of one world.

    Attributes:
      reversible: whether clips played backwards are as likely as forwards.
    """

    world: moving_shapes.World
    reversible: bool

    def clips(self, split: str) -> Clips:
        """The first clips of a split."""
        source = vars(simulated.splits(self.world, NUM_CLIPS, NUM_CLIPS))[split]
        return np.stack([source[index]["video"] for index in range(NUM_CLIPS)])


SOURCES = {
    "shapes": Source(moving_shapes.World(NUM_FRAMES, SIZE, SIZE, **SHAPE, speeds=(1.0, 2.0)), reversible=True),
    "trails": Source(
        moving_shapes.World(NUM_FRAMES, SIZE, SIZE, **SHAPE, speeds=(1.0, 2.0), trail=0.7), reversible=False
    ),
}


@dataclasses.dataclass(frozen=True)
class Rung:
    """One distortion and its expected answers: of fvd and kvd, of frame_frechet, of motion; at the largest number."""

    apply: Distortion
    clips: Answer
    frames: Answer
    motion: Answer

    def expected(self, metric: str) -> Answer:
        return {"frame_frechet": self.frames, "motion": self.motion}.get(metric, self.clips)


# Frames are the same set of pictures under shuffling and reversing, so a metric of frames cannot see them. I3D's logits
# are averages over time of features of a few frames, so FVD should hardly see shuffling (arXiv 2404.12391). Nothing is
# stated of motion under blur and weak noise, which the tracker's windows average, nor of frames that stand still or are
# shifted, of which a set is nearly as likely as of those that move.
PICTURES = {
    "blur 0.5": Rung(distortions.blur(0.5), "above", "above", "open"),
    "blur 1": Rung(distortions.blur(1.0), "above", "above", "open"),
    "noise 4": Rung(distortions.noise(4.0), "above", "above", "open"),
    "noise 16": Rung(distortions.noise(16.0), "above", "above", "above"),
}
MOTION = {
    "freeze": Rung(distortions.freeze, "above", "open", "above"),  # fewer different frames, and in trails none with one
    "shuffle": Rung(distortions.shuffle, "hardly", "floor", "above"),
    "jitter 1": Rung(distortions.jitter(1), "above", "open", "above"),
    "jitter 2": Rung(distortions.jitter(2), "above", "open", "above"),
    "identity swap": Rung(distortions.swap_identity, "above", "floor", "above"),
}
REVERSED = {  # whether its world is reversible -> what playing it backwards must give
    True: Rung(distortions.reverse, "floor", "floor", "floor"),
    False: Rung(distortions.reverse, "above", "floor", "open"),
}


def rungs(source: Source) -> dict[str, Rung]:
    return PICTURES | MOTION | {"reverse": REVERSED[source.reversible]}


def distorted(source: Source, name: str) -> Clips:
    """The samples' clips on one rung; they are those of the training split, the reference those of validation."""
    rng = np.random.default_rng(sorted(rungs(source)).index(name))
    return rungs(source)[name].apply(source.clips("train"), rng)


@functools.cache
def sets(name: str) -> dict[str, Clips]:
    """Of a source: the reference, undistorted clips, and those of every rung."""
    source = SOURCES[name]
    made = {"reference": source.clips("validation"), "undistorted": source.clips("train")}
    return made | {rung: distorted(source, rung) for rung in rungs(source)}


def file_of(name: str) -> Path:
    return HERE / "records" / f"{name}.json"


def records() -> dict[str, dict[str, Any]]:
    """Those that there are, by source."""
    return {name: json.loads(file_of(name).read_text()) for name in SOURCES if file_of(name).exists()}
