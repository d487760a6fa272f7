"""What a step costs by counting alone, without a compiler: an estimate for any mesh from a few facts of the model.

What it knows: the operations of the jaxpr, which scale with the clips of a device; the state, of which fsdp and tensor
keep a part each; the exchanges that splitting parameters and batch needs (one or two gathers of the parameters in the
compute type, one scattered sum of float32 gradients, one sum over `data`). What it leaves out: exchanges of activations
along `tensor` and `frames`, fusions that fail, layouts, padding.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

from vdm.costs.chips import Chip
from vdm.costs.jaxpr import Operation, Work
from vdm.costs.roofline import Roofline, roofline
from vdm.types import BATCH_AXES, MESH_AXES

GRADIENT_BYTES = 4  # float32
KEPT_BYTES = 4  # of a number of a gathered kernel that is kept, which layers cast for themselves


@dataclasses.dataclass(frozen=True)
class Facts:
    """Of a model, whatever the mesh.

    Attributes:
      num_parameters: of the network.
      state_bytes: of the train state: parameters, average, optimizer.
      compute_bytes: of one number of the compute type.
      work: of one clip in one step.
      model_flops: of one clip in one step, without anything done twice.
      activation_bytes: that one clip adds to what lives at once.
      batch_size, num_frames: of the config.
      num_microbatches: of the config.
      num_gathers: of every parameter split over fsdp, in a microbatch; with 1, the backward pass finds it kept.
    """

    num_parameters: int
    state_bytes: float
    compute_bytes: int
    work: Work
    model_flops: float
    activation_bytes: float
    batch_size: int
    num_frames: int
    num_microbatches: int = 1
    num_gathers: int = 2


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Of one step and device: bytes of the state and of what lives besides, and time."""

    state_bytes: float
    temporary_bytes: float
    sent_bytes: float
    roofline: Roofline
    utilisation: float

    @property
    def bytes(self) -> float:
        return self.state_bytes + self.temporary_bytes

    def fits(self, chip: Chip) -> bool:
        return self.bytes <= chip.memory_bytes


def estimate(facts: Facts, axes: dict[str, int], chip: Chip) -> Estimate:
    """The estimate for a mesh, given as the number of devices along each axis."""
    parts, spread = axes["fsdp"] * axes["tensor"], math.prod(axes.values()) // axes["tensor"]
    clips = facts.batch_size / spread  # a share of a clip where frames are split
    state, gradient = facts.state_bytes / parts, facts.num_parameters * GRADIENT_BYTES / parts
    kept = facts.num_parameters / axes["tensor"] * KEPT_BYTES if facts.num_gathers == 1 and axes["fsdp"] > 1 else 0
    update = Operation(0.0, 2 * state + gradient)
    of_one = exchanges(facts.num_parameters, axes, compute_bytes=facts.compute_bytes, num_gathers=facts.num_gathers)
    sent = facts.num_microbatches * sum(of_one.values())
    line = roofline((*facts.work.times(clips / axes["tensor"]).operations, update), sent, chip)
    return Estimate(
        state_bytes=state,
        temporary_bytes=gradient + kept + facts.activation_bytes * clips / facts.num_microbatches / axes["tensor"],
        sent_bytes=sent,
        roofline=line,
        utilisation=line.utilisation(facts.model_flops * clips / axes["tensor"], chip),
    )


def exchanges(
    num_parameters: float, axes: Mapping[str, int], *, compute_bytes: int, num_gathers: int
) -> dict[str, float]:
    """Bytes that each device sends in a microbatch, by kind of exchange: (n-1)/n of the parameters for every gather or
    scattered sum, twice that for a whole sum.

    The TPU compiler takes whole sums for scattered ones where `fsdp` takes all devices (libtpu 0.0.42.1, on v5p and
    v5e; over a part of the devices it does not).
    """
    fsdp, others = axes["fsdp"], axes["data"] * axes["frames"]
    held = num_parameters / axes["tensor"]
    share = held * (fsdp - 1) / fsdp
    whole = 2 * held / fsdp * (others - 1) / others if others > 1 else 2 * share
    return {
        "all-gather": num_gathers * compute_bytes * share,
        "reduce-scatter": GRADIENT_BYTES * share if others > 1 else 0.0,
        "all-reduce": GRADIENT_BYTES * whole,
    }


def gathers_under(remat: str) -> int:
    """How often a policy of `config.run.remat` gathers a kernel: with "none" the backward pass finds it kept."""
    return 1 if remat == "none" else 2


def levers(facts: Facts, axes: dict[str, int], chip: Chip, lighter: Mapping[str, Facts]) -> list[str]:
    """Single changes of a config that would make it fit, by this estimate; the smallest change of each kind. Where none
    would: fewer clips and more devices along `frames` together, if that does.

    `lighter` has the facts under policies of `config.run.remat` that keep less, those that keep most first.
    """
    found = []
    batch_ways = math.prod(axes[axis] for axis in BATCH_AXES)
    for batch_size in _halvings(facts.batch_size, batch_ways):
        if estimate(dataclasses.replace(facts, batch_size=batch_size), axes, chip).fits(chip):
            found.append(f"config.data.batch_size={batch_size}")
            break
    for count in _doublings(facts.num_microbatches, facts.batch_size // batch_ways):
        if facts.batch_size % (count * batch_ways):
            continue
        if estimate(dataclasses.replace(facts, num_microbatches=count), axes, chip).fits(chip):
            found.append(f"config.run.num_microbatches={count}")
            break
    for remat, again in lighter.items():
        if estimate(again, axes, chip).fits(chip):
            found.append(f"config.run.remat={remat}")
            break
    for moved in _moved(axes, "fsdp", axes["fsdp"] * axes["data"]):
        if estimate(facts, moved, chip).fits(chip):
            found.append(f"--mesh={spell(moved)}")
            break
    return found or _shared_clips(facts, axes, chip)


def _shared_clips(facts: Facts, axes: dict[str, int], chip: Chip) -> list[str]:
    """Where a clip a device is too many: fewer clips, each of them over more devices along `frames`."""
    for moved in _moved(axes, "frames", facts.num_frames):
        ways = moved["frames"] // axes["frames"]
        fewer = dataclasses.replace(facts, batch_size=facts.batch_size // ways)
        divides = facts.batch_size % ways == 0 and facts.num_frames % moved["frames"] == 0
        if divides and estimate(fewer, moved, chip).fits(chip):
            return [f"config.data.batch_size={fewer.batch_size} with --mesh={spell(moved)}"]
    return []


def _moved(axes: dict[str, int], axis: str, most: int) -> list[dict[str, int]]:
    """Meshes with twice, four times, ... as many devices along an axis, taken from `data`."""
    sizes = (more for more in _doublings(axes[axis], most) if axes["data"] % (more // axes[axis]) == 0)
    return [axes | {axis: more, "data": axes["data"] * axes[axis] // more} for more in sizes]


def _halvings(batch_size: int, multiple: int) -> list[int]:
    sizes = []
    while batch_size % 2 == 0 and (batch_size // 2) % multiple == 0 and batch_size > 1:
        batch_size //= 2
        sizes.append(batch_size)
    return sizes


def _doublings(first: int, last: int) -> list[int]:
    counts = []
    while first * 2 <= last:
        first *= 2
        counts.append(first)
    return counts


def spell(axes: dict[str, int]) -> str:
    """A mesh as the command line has it: "data=4,fsdp=2"; axes of one device are left out."""
    return ",".join(f"{axis}={axes[axis]}" for axis in MESH_AXES if axes[axis] > 1) or "data=1"


def meshes(facts: Facts, num_devices: int) -> list[dict[str, int]]:
    """The meshes that a batch can be laid out on: data x fsdp, with as many frames as it takes for a device each."""
    found = []
    for frames in (count for count in range(1, facts.num_frames + 1) if facts.num_frames % count == 0):
        if num_devices % frames or facts.batch_size % (num_devices // frames * facts.num_microbatches):
            continue
        ways = num_devices // frames
        found += [
            dict(zip(MESH_AXES, (ways // fsdp, fsdp, 1, frames), strict=True))
            for fsdp in range(1, ways + 1)
            if ways % fsdp == 0
        ]
        break
    return found


class Rank(NamedTuple):
    """What a search found: devices along each axis, a policy of `config.run.remat`, and what they would cost."""

    axes: dict[str, int]
    remat: str
    estimate: Estimate


def ranked(by_policy: Mapping[str, Facts], num_devices: int, chip: Chip) -> list[Rank]:
    """Meshes with policies, from the facts under each policy: those that fit first, the fastest of them first."""
    ranks = [
        Rank(axes, remat, estimate(facts, axes, chip))
        for remat, facts in by_policy.items()
        for axes in meshes(facts, num_devices)
        if axes["fsdp"] > 1 or remat != "kernels"  # no kernel is gathered: the same program as with "none"
    ]
    return sorted(ranks, key=lambda rank: (not rank.estimate.fits(chip), rank.estimate.roofline.seconds))
