"""Budgets of perturbations as people write them on command lines and in files."""

import math


def parse_budget(text: str) -> float:
    """A number, or a fraction like 8/255.

    Raises:
        ValueError: it is neither, or not positive and finite.
    """
    above, slash, below = text.partition("/")
    try:
        value = float(above) / (float(below) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not 0.0 < value < math.inf:
        raise ValueError(f"a positive number or a fraction like 8/255 was wanted, got {text!r}")
    return value
