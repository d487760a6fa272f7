"""How long work takes on a chip at best, and what bounds it (Williams et al. 2009).

Every kernel takes the longer of its FLOPs at the peak and its bytes at the memory's bandwidth; kernels and exchanges
follow one another. A real step is slower where kernels reach neither, and faster where exchanges overlap with them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from vdm.costs.chips import Chip


@runtime_checkable
class Counted(Protocol):
    """A kernel, or an operation of a jaxpr."""

    @property
    def flops(self) -> float: ...

    @property
    def bytes(self) -> float: ...

    @property
    def count(self) -> float: ...


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of one step on one device.

    Attributes:
      compute: of kernels that the peak bounds; memory: of those that the memory's bandwidth bounds.
      collectives: of exchanges between devices.
    """

    compute: float
    memory: float
    collectives: float

    @property
    def seconds(self) -> float:
        return self.compute + self.memory + self.collectives

    @property
    def bound(self) -> str:
        """What takes the largest part."""
        parts = {"compute": self.compute, "memory": self.memory, "collectives": self.collectives}
        return max(parts, key=lambda name: parts[name])

    def utilisation(self, model_flops: float, chip: Chip) -> float:
        """Share of the chip's peak that `model_flops` (of one step and device) are in this time."""
        return model_flops / (chip.peak_flops * self.seconds) if self.seconds else 0.0


def roofline(kernels: Iterable[Counted], sent_bytes: float, chip: Chip) -> Roofline:
    """The sums over kernels, and over `sent_bytes` that the device sends to others in a step.

    Exchanges run in rings over one axis of the interconnect, both ways at once: over two links of a TPU.
    """
    compute = memory = 0.0
    for kernel in kernels:
        at_peak, at_bandwidth = kernel.flops / chip.peak_flops, kernel.bytes / chip.memory_bandwidth
        if at_peak > at_bandwidth:
            compute += at_peak * kernel.count
        else:
            memory += at_bandwidth * kernel.count
    return Roofline(compute, memory, sent_bytes / (chip.link_bandwidth * min(chip.num_links, 2)))
