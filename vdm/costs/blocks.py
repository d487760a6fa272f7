"""Which block of the network, and which phase of a step, the work of a compiled program belongs to.

A block is found by the name of its parameters in the names of operations, where `nets.module` puts it; of blocks that
are compiled as one loop all work stands under the first one's. What the network is called with, the loss and the
optimizer belong to no block.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Collection, Iterable, Mapping

from vdm.costs.program import Kernel
from vdm.types import Params

REST = "outside of blocks"
PHASES = ("forward", "backward", "recomputed", "rest")


@dataclasses.dataclass(frozen=True)
class Work:
    """Of one block in one phase; `bytes` are of main memory, `flops` of matrix products and convolutions."""

    block: str
    phase: str
    flops: float
    bytes: float
    seconds: float


def names(params: Params) -> list[str]:
    """The blocks of a network: every path, joined by "/", to a branch of its parameters."""
    found = []
    for name, branch in params.items():
        if isinstance(branch, Mapping):
            found += [name, *(f"{name}/{rest}" for rest in names(branch))]
    return found


def block_of(op_name: str, blocks: Collection[str]) -> str:
    """The longest of the names in `blocks` that stands in an operation's, such as "jit(step)/jvp(stem)/dot_general"."""
    inside = [name for name in blocks if name in op_name and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", op_name)]
    return max(inside, key=len, default=REST)


def phase_of(op_name: str) -> str:
    """Where in a step of training an operation stands, by the marks that JAX leaves in its name."""
    marks = (("remat", "recomputed"), ("transpose(", "backward"), ("jvp(", "forward"))
    return next((phase for mark, phase in marks if mark in op_name), "rest")


def by_block(timed: Iterable[tuple[Kernel, float]], blocks: Collection[str]) -> list[Work]:
    """Sums over the kernels of each block and phase, the longest block first.

    Args:
      timed: kernels of a program, each with the seconds of all its times together.
      blocks: names of blocks.
    """
    sums: dict[tuple[str, str], list[float]] = collections.defaultdict(lambda: [0.0, 0.0, 0.0])
    for kernel, seconds in timed:
        key = block_of(kernel.belongs, blocks), phase_of(kernel.belongs)
        for place, value in enumerate((kernel.flops * kernel.count, kernel.bytes * kernel.count, seconds)):
            sums[key][place] += value
    works = [Work(*key, *values) for key, values in sums.items()]
    return sorted(works, key=lambda work: (-_seconds(works, work.block), work.block, PHASES.index(work.phase)))


def _seconds(works: Iterable[Work], block: str) -> float:
    return sum(work.seconds for work in works if work.block == block)


def table(works: Iterable[Work]) -> str:
    """Lines of blocks: time of every phase and its share, FLOPs, bytes, and how many FLOPs a second."""
    works = list(works)
    order = list(dict.fromkeys(work.block for work in works))
    total = sum(work.seconds for work in works)
    shown = [phase for phase in PHASES if any(work.phase == phase for work in works)]
    lines = [f"{'block':<28}{''.join(f'{phase:>12}' for phase in shown)}   share     GFLOPs    GB   GFLOPs a second"]
    for block in (*order, None):
        own = [work for work in works if block in (work.block, None)]
        lines.append(f"{block or 'all':<28}{_cells(own, shown, total)}")
    return "\n".join(lines)


def _cells(works: list[Work], phases: list[str], total: float) -> str:
    seconds, flops = sum(work.seconds for work in works), sum(work.flops for work in works)
    of_phases = (sum(work.seconds for work in works if work.phase == phase) for phase in phases)
    rate = f"{flops / seconds / 1e9:.1f}" if seconds else ""
    return (
        "".join(f"{1e3 * each:>9.2f} ms" for each in of_phases)
        + f"{seconds / total if total else 0:>8.1%}{flops / 1e9:>11.4g}"
        + f"{sum(work.bytes for work in works) / 1e9:>6.2f}{rate:>18}"
    )
