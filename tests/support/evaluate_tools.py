"""Shared by the tests of `python -m model.evaluate`: pictures, runs of it, and what it wrote."""

import json
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from model.evaluate.__main__ import app

PICTURES = 24


def picture(number):
    """Flat blocks of a few colours: pictures that a copy can be told from."""
    rng = np.random.default_rng(number)
    blocks = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.kron(blocks, np.ones((16, 16, 1), dtype=np.uint8))


def run(*arguments):
    words = [str(argument) for argument in arguments]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["evaluate", *words])
        result = CliRunner().invoke(app, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def measured(out):
    record = json.loads((out / "results.json").read_text())
    return record, {
        (m["metric"], m["figure"], m["by"], m.get("group", ""), m.get("k"), m.get("epsilon"),
         m.get("unit"), m.get("formula"), m.get("statistic"), m.get("rate")): m["value"]
        for m in rows_of(out)
    }  # fmt: skip


def rows_of(out):
    return [json.loads(line) for line in (out / "measurements.jsonl").read_text().splitlines()]
