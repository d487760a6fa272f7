"""Which taps of a convolution meet its input."""

from __future__ import annotations

import numpy as np


def pairs(
    size: int, taps: int, places: int, *, stride: int, low: int, hole: int, spread: int, is_reversed: int = 0
) -> int:
    """(output place, tap) pairs along one axis in which the tap falls on a number of the input.

    Args:
      size: of the input along the axis; taps: of the kernel; places: of the output.
      stride: of the window.
      low: padding before the input; negative: numbers cut off.
      hole: dilation of the input; a tap between its numbers meets none.
      spread: dilation of the kernel.
      is_reversed: 1 where the kernel is applied from its end.
    """
    steps = np.arange(taps)[::-1] if is_reversed else np.arange(taps)
    at = np.arange(places)[:, None] * stride + steps * spread - low
    return int(np.sum((at >= 0) & (at <= (size - 1) * hole) & (at % hole == 0)))
