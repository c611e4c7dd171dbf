"""Division as scores need it."""

import math


def ratio(found: float, untouched: float) -> float:
    """Return found / untouched; not a number where there is nothing to divide by."""
    return float(found) / float(untouched) if untouched else math.nan
