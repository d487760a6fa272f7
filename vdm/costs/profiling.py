"""A profile of a verb's compiled function: some of its calls are traced, and their time is told by block.

DIR/profile/ then holds the trace of `jax.profiler` (for xprof, TensorBoard or Perfetto) and blocks.txt, the table of
`vdm.costs.blocks`. Of several processes the first is traced. Measured seconds are sums over operations: where a device
does two at a time, as a CPU may, they are more than the step took.
"""

from __future__ import annotations

import collections
import contextlib
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from etils import epath

from vdm.costs import blocks, hlo, program
from vdm.runtime import distributed
from vdm.types import Params

SKIPPED = 2  # first calls: the first reads the program in, the second may still grow the heap
TABLE = "blocks.txt"
UNNAMED = "exchanges, and what has no work"  # of what the program holds besides its kernels
_CONTAINERS = ("while", "call", "conditional")  # their time is that of what they hold


class Profiled:
    """A jitted function that traces its calls number `SKIPPED` to `SKIPPED` + num_calls - 1.

    All calls must have arguments of the same shapes and places: it is compiled once, for the first.
    """

    def __init__(self, function: Any, folder: epath.Path, num_calls: int, named: Collection[str]):
        """`named`: the blocks' names, see `blocks.names`."""
        self._function, self._folder, self._num_calls, self._named = function, folder, num_calls, named
        self._compiled: Any = None
        self._number = 0
        self._traces = contextlib.ExitStack()  # open while calls are traced

    def __call__(self, *args: Any) -> Any:
        if self._compiled is None:
            self._compiled = self._function.lower(*args).compile()
        if self._number == SKIPPED and distributed.is_writer():
            here = self._traces.enter_context(tempfile.TemporaryDirectory(prefix="vdm_profile_"))
            self._traces.callback(self._keep, here)
            self._traces.enter_context(jax.profiler.trace(here))
        result = self._compiled(*args)
        self._number += 1
        last = SKIPPED + self._num_calls
        if self._number in (SKIPPED, last):  # what begins outside of the trace ends outside of it
            jax.block_until_ready(result)
        if self._number == last:
            self._traces.close()
        return result

    def close(self) -> None:
        """Ends a trace that is still open, if a run ends early, and tells what there is of it."""
        self._traces.close()

    def _keep(self, here: str) -> None:
        """Copies the trace, which may be of fewer calls, and tells by block what it says."""
        for file in Path(here).rglob("*"):
            if file.is_file():
                target = self._folder / file.relative_to(here).as_posix()
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
        calls = self._number - SKIPPED
        text = by_block(self._compiled.as_text(), Path(here), max(calls, 1), self._named)
        (self._folder / TABLE).write_text(text + "\n")
        print(f"mean of {calls} calls on one device, by block (trace and table: {self._folder}):\n{text}", flush=True)


@contextlib.contextmanager
def watch(function: Any, num_calls: int, workdir: epath.PathLike, params: Params) -> Iterator[Any]:
    """A jitted function as it is, or `Profiled` where calls are to be; `params`: of the network in it."""
    if not num_calls:
        yield function
        return
    with contextlib.closing(
        Profiled(function, epath.Path(workdir) / "profile", num_calls, blocks.names(params))
    ) as profiled:
        yield profiled


def require_calls(num_profiled: int, num_calls: int, more: str) -> None:
    """Raises ValueError where fewer calls are made than are to be profiled; `more`: what to do then."""
    if num_profiled < 0:
        raise ValueError(f"--profile={num_profiled} must not be negative; 0: no profile")
    if num_profiled and num_calls < SKIPPED + num_profiled:
        raise ValueError(
            f"--profile={num_profiled} traces as many calls after the first {SKIPPED}, and {num_calls} are made: {more}"
        )


def by_block(text: str, trace: Path, num_calls: int, named: Collection[str]) -> str:
    """The table of a program, given as text, for a trace of some calls of it; or why there is none."""
    module = hlo.parse(text)
    left = dict(seconds_of(trace, _name_of(text)))
    if not left:
        return (
            f"The trace names no operation of {_name_of(text)}: this device's profiler gives none. Look at the trace."
        )
    found = program.program(module)
    # a kernel that is called from two places has its seconds once
    timed = [(kernel, left.pop(kernel.name, 0.0) / num_calls) for kernel in found.kernels]
    works = blocks.by_block(timed, named)
    opcodes = {name: each.opcode for part in module.computations.values() for name, each in part.instructions.items()}
    rest = sum(seconds for name, seconds in left.items() if opcodes.get(name) not in _CONTAINERS) / num_calls
    if rest:
        works.append(blocks.Work(UNNAMED, "rest", 0.0, 0.0, rest))
    unknown = found.num_unknown_loops
    loops = f"\n{unknown} loops of unknown length: their FLOPs and bytes are those of one turn" if unknown else ""
    return blocks.table(works) + loops


def seconds_of(trace: Path, module: str) -> Mapping[str, float]:
    """Seconds of every instruction of a program in a trace, all its times together, a device's mean."""
    totals: dict[str, float] = collections.defaultdict(float)
    for file in trace.glob("plugins/profile/*/*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            for line in plane.lines:
                for event in line.events:
                    facts = dict(event.stats)
                    if facts.get("hlo_module") == module and "hlo_op" in facts:
                        totals[str(facts["hlo_op"])] += event.duration_ns / 1e9
    return {name: total / jax.local_device_count() for name, total in totals.items()}


def _name_of(text: str) -> str:
    found = re.match(r"HloModule ([\w.\-]+)", text)
    return found[1] if found else ""
