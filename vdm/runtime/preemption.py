"""Leaving in time: SIGTERM asks the loop to save and stop; the work directory then goes on where it was left."""

import signal
import types
from typing import Any


class Watch:
    """Notes SIGTERM while its block runs, so that the loop can finish its step, save and leave.

    Only the first signal is noted: from then on, and after the block, the handler from before is in place again, so a
    second SIGTERM ends a process that hangs. Must be entered in the main thread (ValueError elsewhere, from `signal`).
    """

    def __init__(self) -> None:
        self._requested = False
        self._before: Any = None

    @property
    def requested(self) -> bool:
        """Whether SIGTERM came; to be looked at after every step."""
        return self._requested

    def stops_after(self, step: int) -> bool:
        """Whether to save and leave after this step."""
        return self._requested

    def __enter__(self) -> "Watch":
        self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        if not self._requested:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        self._requested = True
        signal.signal(signal.SIGTERM, self._before)
        print("SIGTERM: saving a checkpoint after this step, then leaving; a second SIGTERM ends at once", flush=True)
