import os
import re

from model.cli import progress as module
from model.cli.progress import Progress


def test_a_log_gets_one_line_a_step(tmp_path):
    with (tmp_path / "log").open("w") as file:
        progress = Progress(file)
        progress.step("sealing")
        with progress.counter("embedding", None, "files") as advance:
            for _ in range(1000):
                advance()
    wanted = r"sealing\nembedding: \? files\nembedding: 1000 files done in \d\.\d s\n"
    assert re.fullmatch(wanted, (tmp_path / "log").read_text())


def test_a_log_gets_lines_and_a_terminal_a_bar(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_LINES", 0.0)
    with (tmp_path / "log").open("w") as file:
        assert list(Progress(file).counting("reading", "abc", 3)) == ["a", "b", "c"]
    first, *_, third, last = (tmp_path / "log").read_text().splitlines()
    assert first == "reading: 3"
    assert re.fullmatch(r"reading: 3 of 3, \d+\.\d/s, 0 s left", third)
    assert re.fullmatch(r"reading: 3 of 3 done in \d\.\d s", last)
    reader, writer = os.openpty()
    with open(writer, "w") as terminal:
        assert list(Progress(terminal).counting("reading", "abc", 3)) == ["a", "b", "c"]
        shown = b""
        while b"3/3" not in shown:  # a terminal gives what has arrived so far
            shown += os.read(reader, 1 << 16)
    os.close(reader)
    assert b"reading" in shown


def test_a_terminal_gets_a_bar_with_count_and_rate():
    reader, writer = os.openpty()
    with open(writer, "w") as terminal:
        progress = Progress(terminal)
        progress.step("[not] markup")
        with progress.counter("embedding", 3) as advance:
            for _ in range(3):
                advance()
        shown = b""
        while b"3/3" not in shown:  # a terminal gives what has arrived so far
            shown += os.read(reader, 1 << 16)
    os.close(reader)
    assert b"[not] markup" in shown
    assert b"/s" in shown


def test_silence_is_silent(capsys):
    Progress().step("x")
    with Progress().counter("x", 1) as advance:
        advance()
    assert capsys.readouterr() == ("", "")
