# SPDX-License-Identifier: Apache-2.0
"""Regular expressions from checkpoints get the answers of ``re.match``, however they are found."""

from __future__ import annotations

import re
import time

import pytest

from padmarlin.checkpoint import patterns

NAME = "model.layers.18.mlp.gate_proj"


@pytest.mark.parametrize(
    "expression",
    [
        r".*\.18\..*gate.*",
        r".*\.(?:18|19)\..*gate.*",
        r".*\.(?:1[0-9]|2[0-9]|3[0-9])\..*\.(?:gate|up|down)_proj",
        r"^(?!.*\.18\.).*",
        r"(?:[a-z]+\.)+18",
        "layers",
        "",
        "model\0",
    ],
)
def test_answers_are_those_of_re_match(expression: str) -> None:
    expected = re.match(expression, NAME) is not None
    assert patterns.matches(expression, NAME) is expected
    assert patterns._match_elsewhere(expression, NAME) is expected


@pytest.mark.parametrize("expression", ["(.*)*x", "(a|aa)+$", ".*" * 12 + "x", "a?" * 30 + "b"])
def test_what_could_take_forever_is_ended(expression: str, monkeypatch) -> None:
    monkeypatch.setattr(patterns, "TIMEOUT_S", 0.5)
    start = time.monotonic()
    with pytest.raises(ValueError, match="no end of it within 0.5 s"):
        patterns.matches(expression, "a" * 60 + "y" if expression[-1] == "$" else "a" * 29)
    assert time.monotonic() - start < 5
