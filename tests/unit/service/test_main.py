from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.__main__ import cli


@pytest.fixture(autouse=True)
def _no_width(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "400")


def test_options_before_settings_are_shown(tmp_path: Path):
    done = CliRunner().invoke(
        cli, ["--data-dir", str(tmp_path / "here"), "--port", "8123", "settings"]
    )
    assert done.exit_code == 0
    assert str(tmp_path / "here") in done.stdout
    assert "8123" in done.stdout


@pytest.mark.parametrize("command", [["openapi"], ["key", "bob"], ["keys"], ["revoke", "bob"]])
def test_options_before_a_command_that_has_no_use_for_them_are_refused_by_name(command: list[str]):
    done = CliRunner().invoke(cli, ["--data-dir", "x", "--port", "1", *command])
    assert done.exit_code == 2
    assert "--port, --data-dir before" in done.stderr
    assert command[0] in done.stderr
