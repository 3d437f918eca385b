# SPDX-License-Identifier: Apache-2.0
"""The lines that tell what was taken."""

from __future__ import annotations

import logging

import pytest

from padmarlin.integrations.vllm.journal import Journal, patterns


def test_names_that_differ_in_a_number() -> None:
    names = [f"model.layers.{i}.mlp.down_proj" for i in (0, 1, 2, 5)]
    assert patterns([*names, "lm_head"]) == ["model.layers.{0..2,5}.mlp.down_proj", "lm_head"]
    assert patterns(["model.layers.7.mlp.down_proj"]) == ["model.layers.7.mlp.down_proj"]
    assert patterns([]) == []


def test_lines() -> None:
    journal = Journal()
    journal.leave("model.layers.0.mlp.gate_up_proj")
    assert journal.lines(2) == [
        "padmarlin: leaves all 1 quantized linear layers to vLLM: no layer that vLLM refuses or "
        "gets wrong at TP=2"
    ]
    journal.take("model.layers.0.mlp.down_proj", "1.5 groups")
    journal.take("model.layers.1.mlp.down_proj", "1.5 groups")
    assert journal.lines(2) == [
        "padmarlin: takes 2 of 3 quantized linear layers at TP=2: "
        "model.layers.{0..1}.mlp.down_proj: 1.5 groups"
    ]


def test_told_once_and_by_one_rank(caplog: pytest.LogCaptureFixture) -> None:
    journal, other = Journal(), Journal()
    with caplog.at_level(logging.INFO, "vllm.padmarlin"):
        other.report(rank=1, tp=2)
        journal.report(rank=0, tp=2)
        journal.report(rank=0, tp=2)
    assert len(caplog.records) == 1
