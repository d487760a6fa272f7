"""What chips can do, by their makers' figures: one table.

A device is what JAX calls one: a TPU v4 or v5p is one device of two cores, a tpu7x is two devices, each with half of
the chip's figures. Links are those of the interconnect between chips (ICI, or NVLink's total taken as one link).
"""

from __future__ import annotations

import dataclasses
import math

GIB = 2**30
_BOOK = "scaling-book (Austin et al. 2025, jax-ml.github.io/scaling-book/tpus)"
_CLOUD = "docs.cloud.google.com/tpu/docs"


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device of a kind.

    Attributes:
      peak_flops: of bfloat16 matrix products with float32 sums, FLOP/s, dense.
      memory_bytes: of its main memory (HBM).
      memory_bandwidth: of it, bytes/s.
      link_bandwidth: of one link in one direction, bytes/s.
      num_links: of a device, in all directions.
      sources: where the figures stand.
    """

    peak_flops: float
    memory_bytes: float
    memory_bandwidth: float
    link_bandwidth: float
    num_links: int
    sources: str


# The names are those of TPU topologies, and of GPUs.
CHIPS: dict[str, Chip] = {
    "v4": Chip(275e12, 32 * GIB, 1.2e12, 4.5e10, 6, f"{_CLOUD}/v4; links: {_BOOK}"),
    "v5e": Chip(197e12, 16 * GIB, 8.19e11, 4.5e10, 4, f"{_CLOUD}/v5e; links: {_BOOK}"),
    "v5p": Chip(459e12, 95 * GIB, 2.765e12, 9e10, 6, f"{_CLOUD}/v5p; links: {_BOOK}"),
    "v6e": Chip(918e12, 32 * GIB, 1.6e12, 9e10, 4, f"{_CLOUD}/v6e; links: {_BOOK}"),
    "tpu7x": Chip(1.15e15, 96 * GIB, 3.7e12, 9e10, 3, f"half of a chip of {_BOOK}"),
    "a100": Chip(312e12, 80e9, 2.039e12, 3e11, 1, "NVIDIA A100 80GB SXM data sheet"),
    "h100": Chip(989e12, 80e9, 3.35e12, 4.5e11, 1, "NVIDIA H100 SXM data sheet, dense"),
    "h200": Chip(989e12, 141e9, 4.8e12, 4.5e11, 1, "NVIDIA H200 SXM data sheet, dense"),
}
DEVICES_PER_CHIP = {"tpu7x": 2}  # one, where nothing is said
# v4's topologies are of single cores unless they are asked for as one device a chip, which is how its machines run.
TOPOLOGY_OPTIONS = {"v4": {"chip_config_name": "megacore"}}
TPUS = ("v4", "v5e", "v5p", "v6e", "tpu7x")


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips of a kind in a grid: "v5p:2x2x4"."""

    kind: str
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.kind}:{'x'.join(map(str, self.shape))}"

    @property
    def num_devices(self) -> int:
        return math.prod(self.shape) * DEVICES_PER_CHIP.get(self.kind, 1)

    @property
    def chip(self) -> Chip:
        return CHIPS[self.kind]


def topology(name: str) -> Topology:
    """Reads "v5e:16x16": two sides for v5e and v6e, three for v4, v5p and tpu7x, one number for GPUs ("h100:8").

    Raises:
      ValueError: an unknown kind, or sides that are no positive numbers or too few or many.
    """
    kind, _, sides = name.partition(":")
    if kind not in CHIPS:
        raise ValueError(
            f"the topology {name!r} is of no known chip; the kinds are {', '.join(CHIPS)}, as in v5e:16x16"
        )
    rank = 2 if kind in ("v5e", "v6e") else 3 if kind in TPUS else 1
    words = sides.split("x")
    if len(words) != rank or not all(word.isdecimal() and int(word) > 0 for word in words):
        example = f"{kind}:{'x'.join(['4', '4', '8'][:rank])}"
        raise ValueError(f"the topology {name!r} has no shape; a {kind} needs {rank} sides, as in {example}")
    return Topology(kind, tuple(map(int, words)))
