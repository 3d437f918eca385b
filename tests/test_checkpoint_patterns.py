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
    assert (NAME in patterns._matching_elsewhere(expression, [NAME])) is expected


def test_many_names_take_one_process() -> None:
    names = [f"model.layers.{i}.mlp.{part}_proj" for i in range(80) for part in ("gate", "down")]
    expression = r".*\.(?:1[0-9]|2[0-9])\..*\.(?:gate|up)_proj"
    start = time.monotonic()
    found = patterns.matching(expression, names)
    assert found == {f"model.layers.{i}.mlp.gate_proj" for i in range(10, 30)}
    assert time.monotonic() - start < 5  # a process for each of the names would take longer


@pytest.mark.parametrize("expression", ["(.*)*x", "(a|aa)+$", ".*" * 12 + "x", "a?" * 30 + "b"])
def test_what_could_take_forever_is_ended(expression: str, monkeypatch) -> None:
    monkeypatch.setattr(patterns, "TIMEOUT_S", 0.5)
    start = time.monotonic()
    with pytest.raises(ValueError, match="no end of it within 0.5 s"):
        patterns.matches(expression, "a" * 60 + "y" if expression[-1] == "$" else "a" * 29)
    assert time.monotonic() - start < 5
