"""The line that says how far training is, how fast, how well, and how long it will still take."""

import sys
import time
from collections.abc import Callable
from typing import TextIO


class Progress:
    """Shows one line: rewritten in place on a terminal, a new one each time in a file.

    Args:
      first_step: steps that were done when this process took over.
      num_steps: of the whole run.
      stream: where to write; None means standard output.
      clock: seconds, increasing.
    """

    def __init__(
        self,
        first_step: int,
        num_steps: int,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._num_steps = num_steps
        self._stream = sys.stdout if stream is None else stream
        self._clock = clock
        self._seen = (first_step, clock())

    def show(self, step: int, loss: float) -> None:
        """Shows the state after `step`; the speed is that since the last call, whatever the time went to."""
        now = self._clock()
        seen_step, seen_at = self._seen
        self._seen = (step, now)
        text = f"step {step}/{self._num_steps}  loss {loss:.4f}"
        if step > seen_step and now > seen_at:
            rate = (step - seen_step) / (now - seen_at)
            text += f"  {rate:.3g} steps/s  {duration((self._num_steps - step) / rate)} left"
        if self._stream.isatty():
            self._stream.write(f"\r\x1b[2K{text}")  # back to the start of the line, and clear it
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def finish(self, status: str) -> None:
        """Ends the line, and says how the run ended, "finished" or "stopped"."""
        newline = "\n" if self._stream.isatty() else ""
        self._stream.write(f"{newline}{status} after step {self._seen[0]} of {self._num_steps}\n")
        self._stream.flush()


def duration(seconds: float) -> str:
    """A length of time in its two largest units: "42s", "3m07s", "2h05m", "3d01h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"
