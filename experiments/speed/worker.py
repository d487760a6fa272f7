"""One side of a pair, in a process of its own that waits for its turns.

    PYTHON -m experiments.speed.worker SIDE KIND SIZE

Reads numbers of calls from standard input, a line each, and answers each with a line of JSON: the seconds of every
call. Its first line says what making ready took and how large the network is, its last one the peak of its memory. Both
sides keep the memory that they free, as `vdm` does: it is worth as much to either.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable

from vdm.runtime.host_memory import keep_freed_memory


def main() -> None:
    side, kind, size = sys.argv[1:]
    keep_freed_memory()
    since = time.monotonic()
    if side == "ours":
        from experiments.speed import ours as module
    else:
        from experiments.speed import theirs as module
    imported = time.monotonic()
    call, num_parameters = module.make(side, kind, size)
    made = time.monotonic()
    call()
    first = time.monotonic()
    tell(imports=imported - since, making=made - imported, first_call=first - made, parameters=num_parameters)
    for line in sys.stdin:
        tell(seconds=[timed(call) for _ in range(int(line))])
    tell(peak_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def timed(call: Callable[[], None]) -> float:
    since = time.monotonic()
    call()
    return time.monotonic() - since


def tell(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
