"""Event loops that are closed when their work is done, and not before."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

_PATIENCE = 60.0  # seconds


@contextlib.contextmanager
def finishing() -> Iterator[None]:
    """Within its block, a new event loop runs the tasks that are left in it to their ends, for a minute at most, before
    it is closed.

    When a read or write fails, orbax closes its loop over all the others. Their threads then report to a closed loop,
    and coroutines are torn down at some later collection of garbage: pages of traces below the one line that says what
    is wrong, and in Python 3.11 a SystemError in whoever compiles source at that moment.
    """
    before = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(_Finishing())
    try:
        yield
    finally:
        asyncio.set_event_loop_policy(before)


class _Finishing(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        loop = super().new_event_loop()
        close = loop.close
        loop.close = lambda: _finish(loop, close)
        return loop


def _finish(loop: asyncio.AbstractEventLoop, close: Callable[[], None]) -> None:
    until = time.monotonic() + _PATIENCE
    while not loop.is_closed() and (left := asyncio.all_tasks(loop)) and (seconds := until - time.monotonic()) > 0:
        loop.run_until_complete(asyncio.wait(left, timeout=seconds))
    close()
