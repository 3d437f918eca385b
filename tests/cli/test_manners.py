# SPDX-License-Identifier: Apache-2.0
"""What every verb has in common: help, exit codes, errors of one line."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from padmarlin.cli import app
from padmarlin.cli.manners import bad_input_refused

runner = CliRunner()

VERBS = [command.name or "" for command in app.registered_commands]


@pytest.mark.parametrize("arguments", [["--help"], []])
def test_help(arguments: list[str]) -> None:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    assert "Exit codes: 0 done, 1 a check failed, 2 bad input" in result.output
    for verb in VERBS:
        assert f"\n  {verb}" in result.output
    assert "..." not in result.output.partition("Commands:")[2]  # no summary is cut short


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_verbs(verb: str) -> None:
    result = runner.invoke(app, [verb, "--help"])
    assert result.exit_code == 0
    assert f"padmarlin {verb}" in result.output
    assert result.output.isascii()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bogus"], "padmarlin: No such command 'bogus'"),
        (["--bogus"], "padmarlin: No such option: --bogus"),
        (["plan"], "padmarlin plan: Missing argument"),
        (["env", "superfluous"], "padmarlin env: Got unexpected extra argument"),
    ],
)
def test_errors_take_one_line(arguments: list[str], message: str) -> None:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(message)
    assert len(result.stderr.splitlines()) == 1
    assert "--help' says more" in result.stderr


def test_refusals_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as stopped, bad_input_refused():
        raise ValueError("pad: got this,\n expected that")
    assert stopped.value.exit_code == 2
    assert capsys.readouterr().err == "padmarlin pad: got this, expected that\n"


def test_bugs_are_not_refusals() -> None:
    with pytest.raises(KeyError), bad_input_refused():
        raise KeyError("a bug")
