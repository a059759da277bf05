"""Budgets as people write them."""

import pytest

from model.cli.budgets import parse_budget


def test_budgets_are_numbers_or_fractions():
    assert parse_budget("0.5") == 0.5
    assert parse_budget("36/255") == 36 / 255
    for text in ("0", "-1", "nan", "inf", "1/0", "a", "1/2/3", "1/", ""):
        with pytest.raises(ValueError, match="a positive number or a fraction"):
            parse_budget(text)
