"""Alive but stuck: a run whose steps do not come any more ends, and leaves the stacks of all its threads."""

import faulthandler
import time

_STANDARD_ERROR = 2  # its descriptor: sys.stderr may be replaced by what has none
_AT_MOST_EVERY = 1.0  # seconds between two settings of the clock, or a tenth of the limit


class Watchdog:
    """Within its block the process ends with exit code 1 when `beat` was not called for so many seconds.

    The clock runs outside of Python, so it also sees a thread that holds the interpreter's lock. What every thread was
    doing goes to standard error. The limit must hold the longest time between two beats, compilation included; it is
    exact to a second, or a tenth of it.

    Args:
      seconds: without a beat; 0: no limit.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = -float("inf")

    def beat(self) -> None:
        """To be called after everything that takes its time."""
        now = time.monotonic()
        if self._seconds and now - self._last > min(_AT_MOST_EVERY, 0.1 * self._seconds):
            faulthandler.dump_traceback_later(self._seconds, exit=True, file=_STANDARD_ERROR)
            self._last = now

    def __enter__(self) -> "Watchdog":
        self.beat()
        return self

    def __exit__(self, *error: object) -> None:
        if self._seconds:
            faulthandler.cancel_dump_traceback_later()
