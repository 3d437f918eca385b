# SPDX-License-Identifier: Apache-2.0
"""Goals on rows made by hand: pass, miss and not measured, each for its reason."""

from __future__ import annotations

import pytest

from benchmarks import goals
from benchmarks.cases import Case, Coding
from benchmarks.goals import GOALS, MISS, NOT_MEASURED, PASS, judge_all
from benchmarks.limits import case_limit_us
from benchmarks.rows import Outcome, append, make_row
from benchmarks.shapes import LAYERS, slowest_part
from padmarlin.tradeoff.gpus import GPUS
from tests.benchmarks.double import MACHINE


def row(model, layer, tp, m, us=None, peer=None, peer_us=None, over=None, **coding):
    """`over`: us as a multiple of the limit."""
    (found,) = (x for x in LAYERS if (x.model, x.name) == (model, layer))
    case = Case(slowest_part(found, tp), m, Coding(**coding))
    limit = case_limit_us(GPUS["h200"], case)
    us = limit * over if over else us
    other = Outcome("ok", peer_us, 0.0) if peer_us else None
    return make_row(MACHINE, case, "k", limit, Outcome("ok", us, 0.0), peer, other)


def outcome(name, *rows):
    return judge_all(rows)[name].outcome


def test_nothing_measured_is_neither_pass_nor_miss():
    assert {v.outcome for v in judge_all([]).values()} == {NOT_MEASURED}
    assert len({goal.name for goal in GOALS}) == len(GOALS)


def test_fraction_of_the_read_limit():
    good = row("qwen2-72b", "gate_up", 1, 16, over=1.1)
    bad = row("qwen2-72b", "down", 1, 1, over=1.2)
    small = row("qwen2-72b", "o", 8, 1, over=3.0)
    assert outcome("6.1a", good, small) == PASS
    verdict = judge_all([good, bad, small])["6.1a"]
    assert (verdict.outcome, verdict.rows) == (MISS, 2)
    assert verdict.value == pytest.approx(1 / 1.2)
    assert "down" in verdict.where
    assert outcome("6.1a", row("qwen2-72b", "gate_up", 1, 32, over=2.0)) == NOT_MEASURED
    eight = row("qwen2-72b", "gate_up", 1, 1, over=1.2, bits=8)
    assert (outcome("6.1a", eight), outcome("6.5b", eight)) == (NOT_MEASURED, MISS)


def test_fixed_costs():
    limit = row("qwen2-72b", "down", 8, 1, us=1).us_limit
    assert outcome("6.1b", row("qwen2-72b", "down", 8, 1, us=limit + 3.4)) == PASS
    assert outcome("6.1b", row("qwen2-72b", "down", 8, 1, us=limit + 3.6)) == MISS


@pytest.mark.parametrize(
    "name, model, layer, tp, most",
    [
        ("6.2a", "pairs", "k_14784", 1, 1.01),
        ("6.2b", "qwen2-72b", "down", 2, 1.01),
        ("6.2c", "qwen2-72b", "down", 8, 1.03),
        ("6.2d", "pairs", "n_7392", 1, 1.01),
        ("6.2e", "pairs", "n_odd", 1, 1.10),
        ("6.2e", "pairs", "k_odd", 1, 1.10),
        ("7.2", "qwen2-72b", "down", 4, 1.02),
    ],
)
def test_ragged_costs_nothing(name, model, layer, tp, most):
    slack = 0.001
    assert outcome(name, row(model, layer, tp, 1, 10 * (most - slack), "aligned", 10.0)) == PASS
    assert outcome(name, row(model, layer, tp, 1, 10 * (most + slack), "aligned", 10.0)) == MISS
    # Another peer's ratio does not count.
    assert outcome(name, row(model, layer, tp, 1, 99.0, "cublas", 10.0)) == NOT_MEASURED


def test_peers():
    def against(peer, m, ratio, **coding):
        return row("qwen2-72b", "down", 2, m, 10.0, peer, 10.0 * ratio, **coding)

    assert outcome("6.3", against("pad+slice", 64, 1.2)) == PASS
    assert outcome("6.3", against("pad+slice", 64, 1.1)) == MISS
    assert outcome("6.3", against("pad+slice", 128, 1.0)) == NOT_MEASURED
    assert outcome("6.4a", against("cublas", 16, 3.1)) == MISS
    assert outcome("6.4b", against("humming", 1, 0.9), against("humming", 2, 1.2)) == PASS
    assert outcome("6.4c", against("humming", 1, 0.9), against("humming", 2, 1.2)) == MISS
    assert outcome("6.5a", against("fp16", 1, 0.97, dtype="bfloat16")) == MISS
    assert outcome("6.5c", against("symmetric", 1, 0.96, symmetric=False)) == PASS
    assert outcome("6.6", against("in-order", 16, 0.94, act_order=True)) == MISS
    assert outcome("7.1a", against("cublas", 64, 1.95)) == PASS
    assert outcome("7.1d", against("vllm-marlin", 96, 1.2)) == MISS
    assert outcome("7.1d", against("vllm-marlin", 128, 1.2)) == NOT_MEASURED
    assert outcome("7.1f", against("machete", 512, 1.01)) == PASS


def test_a_smaller_m_that_is_slower():
    def at(m, us):
        return row("qwen2-72b", "down", 2, m, us)

    assert outcome("7.3", at(1, 10.0), at(2, 10.0), at(64, 20.0)) == PASS
    verdict = judge_all([at(1, 10.0), at(63, 25.0), at(64, 20.0)])["7.3"]
    assert (verdict.outcome, verdict.value) == (MISS, 1.25)
    assert "M=63" in verdict.where and "M=64" in verdict.where
    assert outcome("7.3", at(1, 10.0)) == NOT_MEASURED
    # M of different layers is no sweep.
    assert outcome("7.3", at(1, 10.0), row("qwen2-72b", "o", 1, 2, 5.0)) == NOT_MEASURED


def test_the_command(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    append(path, [row("qwen2-72b", "gate_up", 1, 1, over=1.05)])
    assert goals.main([str(path)]) == 0
    assert "2 pass, 0 missed" in capsys.readouterr().out
    append(path, [row("qwen2-72b", "gate_up", 1, 2, over=2)])
    assert goals.main([str(path)]) == 1
    assert "missed" in capsys.readouterr().out
    assert goals.main([]) == 2
    assert goals.main([str(tmp_path / "none")]) == 2
