"""One side of a pair, in a process of its own that waits for its turns; on Linux.

    PYTHON -m experiments.speed.worker SIDE KIND '{"dim": 32, ...}'

Reads numbers of calls from standard input, a line each, and answers each with a line of JSON: the seconds of every
call. Its first line says what making ready took (all until the end of the first call, compiling included), and what was
made; its last one FLOPs and memory, compiling excluded: at rest, the peak of single calls that begin there, and that of
all timed calls. Both sides keep the memory that they free, as `vdm` does, so that the last is more than they need.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from experiments.speed.works import OURS, Size
from vdm.runtime.host_memory import keep_freed_memory


def main() -> None:
    side, kind, written = sys.argv[1:]
    told = json.loads(written)
    size = Size(**told | {"multipliers": tuple(told["multipliers"])})
    keep_freed_memory()
    since = time.monotonic()
    if side in OURS:
        from experiments.speed import ours as module
    else:
        from experiments.speed import theirs as module
    imported = time.monotonic()
    made = module.make(side, kind, size)
    made.call()
    ready = time.monotonic()
    tell(
        imports=imported - since,
        first_call=ready - imported,
        parameters=made.parameters,
        versions=made.versions,
        threads=made.threads,
        device=made.device,
        peak_bytes_of_first_call=peak_bytes(),
    )
    made.call()  # what only the second call does is over, too
    at_rest = forget_peak()
    for line in sys.stdin:
        tell(seconds=[timed(made.call) for _ in range(int(line))])
    timed_peak = peak_bytes()
    memory = {"bytes_at_rest": at_rest, "peak_bytes": peak_of_a_call(made.call), "peak_bytes_while_timed": timed_peak}
    on_device = {} if made.peak_bytes is None else {"device_peak_bytes": made.peak_bytes()}
    tell(**memory, **on_device, flops=made.flops())


def timed(call: Callable[[], None]) -> float:
    since = time.monotonic()
    call()
    return time.monotonic() - since


def peak_of_a_call(call: Callable[[], None]) -> int:
    """The most of three calls, each after all that was freed was given back."""
    peaks = []
    for _ in range(3):
        forget_peak()
        call()
        peaks.append(peak_bytes())
    return max(peaks)


def peak_bytes() -> int:
    """The most memory that the process had since `forget_peak`, or since its start."""
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(kilobytes)


def forget_peak() -> int:
    """Gives back what was freed, and lets the peak be what the process holds now, which it returns."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def tell(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
