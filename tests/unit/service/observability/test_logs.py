import json
import logging
import subprocess
import sys

import pytest

from service.observability.logs import escape_controls

HOSTILE = "a\x1b[2Jb\nrequest status=200\r\u2028\u202e\x9b1m\ud800"
PROGRAM = f"""
HOSTILE = {HOSTILE!r}
import structlog, sys
from service.observability.logs import configure_logs
configure_logs("info", sys.argv[1])
log = structlog.stdlib.get_logger()
log.info("request", text=HOSTILE)
try:
    raise ValueError(HOSTILE)
except ValueError:
    log.exception("failed")
"""


def lines_of(style: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, style], capture_output=True, check=True
    )
    assert not done.stdout
    return done.stderr.decode().split("\n")[:-1]


@pytest.mark.parametrize("style", ["json", "console"])
def test_text_from_outside_cannot_break_a_line_or_steer_a_terminal(style: str):
    lines = lines_of(style)
    for line in lines:
        assert line.isprintable()
    own = [line for line in lines if not line.startswith(("    |", "Traceback (most recent"))]
    assert len(own) == 2


def test_a_json_line_holds_the_text_as_it_was():
    assert json.loads(lines_of("json")[0])["text"] == HOSTILE


def test_escaping_leaves_everything_else_alone():
    event = {"event": "größer 画像", "k": 10, "stages_ms": {"embed": 1.0}}
    assert escape_controls(logging.getLogger(), "info", dict(event)) == event
