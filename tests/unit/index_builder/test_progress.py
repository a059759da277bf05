import os

from rich.console import Console

from index_builder.progress import Bar, Lines, Silent, progress_for


def test_a_log_gets_one_line_a_step(tmp_path):
    with (tmp_path / "log").open("w") as file:
        progress = progress_for(file)
        assert isinstance(progress, Lines)
        progress.step("sealing")
        with progress.counting("embedding", None) as advance:
            for _ in range(1000):
                advance()
    wanted = "sealing\nembedding: ? files\nembedding: 1000 files done\n"
    assert (tmp_path / "log").read_text() == wanted


def test_a_terminal_gets_a_bar_with_count_and_rate():
    reader, writer = os.openpty()
    with open(writer, "w") as terminal:
        assert isinstance(progress_for(terminal), Bar)
        progress = Bar(Console(file=terminal, force_terminal=True, width=120))
        progress.step("[not] markup")
        with progress.counting("embedding", 3) as advance:
            for _ in range(3):
                advance()
        shown = b""
        while b"3/3" not in shown:  # a terminal gives what has arrived so far
            shown += os.read(reader, 1 << 16)
    os.close(reader)
    assert b"[not] markup" in shown
    assert b"/s" in shown


def test_silence_is_silent(capsys):
    Silent().step("x")
    with Silent().counting("x", 1) as advance:
        advance()
    assert capsys.readouterr() == ("", "")
