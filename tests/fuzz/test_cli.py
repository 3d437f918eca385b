# SPDX-License-Identifier: Apache-2.0
"""Command lines of known and unknown words: help or a usage error, never a traceback.

Seeds: Hypothesis, derandomised.
"""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from padmarlin.cli import app
from tests.fuzz import CASES

WORDS = ["env", "--json", "--version", "--help", "-h", "--", "-", "", "nope", "--json=1", "é", "\0"]

USAGE_ERROR = 2


@settings(max_examples=CASES, suppress_health_check=list(HealthCheck))
@given(words=st.lists(st.sampled_from(WORDS) | st.text(max_size=8), max_size=4))
def test_any_command_line(words: list[str]) -> None:
    result = CliRunner().invoke(app, words)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (0, USAGE_ERROR), result.output
    assert result.output, "neither an answer nor a reason"
