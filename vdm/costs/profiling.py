"""A profile of a verb's compiled function: some of its calls are traced, and their time is told by block.

DIR/profile/ then holds the trace of `jax.profiler` (for xprof, TensorBoard or Perfetto) and blocks.txt, the table of
`vdm.costs.blocks`. Measured seconds are sums over operations: where a device does two at a time, as a CPU may, they are
more than the step took.
"""

from __future__ import annotations

import collections
from collections.abc import Collection, Mapping
from typing import Any

import jax
from etils import epath

from vdm.costs import blocks, hlo, program
from vdm.runtime import distributed
from vdm.types import Params

SKIPPED = 2  # first calls: the first reads the program in, the second may still grow the heap
TABLE = "blocks.txt"


class Profiled:
    """A jitted function that traces its calls number `SKIPPED` to `SKIPPED` + num_calls - 1.

    All calls must have arguments of the same shapes and places: it is compiled once, for the first.
    """

    def __init__(self, function: Any, folder: epath.Path, num_calls: int, named: Collection[str]):
        """`named`: the blocks' names, see `blocks.names`."""
        self._function, self._folder, self._num_calls, self._named = function, folder, num_calls, named
        self._compiled: Any = None
        self._number = 0

    def __call__(self, *args: Any) -> Any:
        if self._compiled is None:
            self._compiled = self._function.lower(*args).compile()
        if self._number == SKIPPED:
            jax.profiler.start_trace(str(self._folder))
        result = self._compiled(*args)
        self._number += 1
        if self._number == SKIPPED + self._num_calls:
            jax.block_until_ready(result)
            jax.profiler.stop_trace()
            if distributed.is_writer():
                self._tell()
        return result

    def _tell(self) -> None:
        left = dict(seconds_of(self._folder))  # a kernel that is called from two places has its seconds once
        found = program.program(hlo.parse(self._compiled.as_text()))
        timed = [(kernel, left.pop(kernel.name, 0.0) / self._num_calls) for kernel in found.kernels]
        text = blocks.table(blocks.by_block(timed, self._named))
        (self._folder / TABLE).write_text(text + "\n")
        print(f"mean of {self._num_calls} calls on one device, by block (trace and table: {self._folder}):\n{text}")


def require_calls(num_profiled: int, num_calls: int, more: str) -> None:
    """Raises ValueError where fewer calls are made than are to be profiled; `more`: what to do then."""
    if num_profiled < 0 or (num_profiled and num_calls < SKIPPED + num_profiled):
        raise ValueError(
            f"--profile={num_profiled} traces as many calls after the first {SKIPPED}, and {num_calls} are made: {more}"
        )


def seconds_of(folder: epath.PathLike) -> Mapping[str, float]:
    """Seconds of every instruction in the newest trace of a folder, all its times together, a device's mean.

    Raises:
      FileNotFoundError: no trace in the folder.
    """
    files = sorted(epath.Path(folder).glob("plugins/profile/*/*.xplane.pb"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no trace of jax.profiler")
    totals: dict[str, float] = collections.defaultdict(float)
    for plane in jax.profiler.ProfileData.from_file(str(files[-1])).planes:
        for line in plane.lines:
            for event in line.events:
                name = dict(event.stats).get("hlo_op")
                if name is not None:
                    totals[str(name)] += event.duration_ns / 1e9
    return {name: total / jax.local_device_count() for name, total in totals.items()}


def watch(function: Any, num_calls: int, workdir: epath.PathLike, params: Params) -> Any:
    """A jitted function as it is, or `Profiled` where calls are to be; `params`: of the network in it."""
    folder = epath.Path(workdir) / "profile"
    return Profiled(function, folder, num_calls, blocks.names(params)) if num_calls else function
