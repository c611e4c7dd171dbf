"""How far pictures are mirrored at their right and bottom edges before networks see them. Needs no torch."""

import numpy as np

MINIMUM = 16  # networks are never shown less than this many pixels a side


def padded(side: int, multiple: int, minimum: int = MINIMUM) -> int:
    """Return the next multiple that is not less than a side, nor than `minimum`."""
    return -(-max(side, minimum) // multiple) * multiple


def mirrored(start: int, length: int, side: int) -> np.ndarray:
    """Return which of `side` places, mirrored to and fro without end, are at `start` and the `length` - 1 after it."""
    period = max(2 * (side - 1), 1)
    there = np.arange(start, start + length) % period
    return np.minimum(there, period - there).clip(0, side - 1)
