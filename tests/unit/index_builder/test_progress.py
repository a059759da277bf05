import io

from rich.console import Console

from index_builder.progress import Bar, Lines, Silent, progress_for


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_one_line_a_step():
    file = io.StringIO()
    progress = progress_for(file)
    assert isinstance(progress, Lines)
    progress.step("sealing")
    with progress.counting("embedding", None) as advance:
        for _ in range(1000):
            advance()
    assert file.getvalue() == "sealing\nembedding: ? files\nembedding: 1000 files done\n"


def test_a_terminal_gets_a_bar_with_count_and_rate():
    file = Terminal()
    assert isinstance(progress_for(file), Bar)
    progress = Bar(Console(file=file, force_terminal=True, width=120))
    progress.step("[not] markup")
    with progress.counting("embedding", 3) as advance:
        for _ in range(3):
            advance()
    shown = file.getvalue()
    assert "[not] markup" in shown
    assert "3/3" in shown
    assert "/s" in shown


def test_silence_is_silent(capsys):
    Silent().step("x")
    with Silent().counting("x", 1) as advance:
        advance()
    assert capsys.readouterr() == ("", "")
