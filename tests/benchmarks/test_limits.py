# SPDX-License-Identifier: Apache-2.0
"""Limits against figures worked out by hand, and the cases that a run selects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import run
from benchmarks.cases import FULL_M, SWEEP_M, Case, Coding, parse_m, quick_cases, select_cases
from benchmarks.limits import case_limit_us, crossover_m
from benchmarks.shapes import layers_of, slowest_part
from padmarlin.tradeoff.gpus import GPUS

ROOT = Path(__file__).resolve().parents[2]


def case(name, tp, m, **coding):
    (layer,) = (x for x in layers_of(["qwen2-72b"]) if x.name == name)
    return Case(slowest_part(layer, tp), m, Coding(**coding))


def test_bytes_of_a_weight():
    # 8192 x 8192 x 0.5 for codes, 64 groups x 8192 x 2 for scales, half a byte per zero point.
    assert case("o", 1, 1).weight_bytes == 8192 * 8192 // 2 + 64 * 8192 * 2
    asymmetric = case("o", 1, 1, symmetric=False).weight_bytes
    assert asymmetric - case("o", 1, 1).weight_bytes == 64 * 8192 // 2
    assert case("o", 1, 1, bits=8).weight_bytes == 8192 * 8192 + 64 * 8192 * 2
    # 14784 rows from row 14784 touch 116 groups: the first and the last half each.
    assert case("down", 2, 1).groups == 116
    assert case("down", 2, 1, act_order=True).groups == 231
    assert case("o", 1, 7).bytes == case("o", 1, 1).weight_bytes + 7 * 16384 * 2


@pytest.mark.parametrize(
    "name, tp, m, bits, us",
    [
        ("gate_up", 1, 1, 4, 58.1),  # bound by memory: 249.8 MB / 4.3 TB/s
        ("down", 2, 16, 4, 14.7),
        ("down", 8, 1, 4, 3.6),
        ("qkv", 8, 32, 4, 1.4),
        ("gate_up", 1, 4096, 4, 5023.5),  # bound by arithmetic: 2 M K N / 790 TFLOP/s
        ("o", 4, 64, 8, 4.3),
        ("down", 1, 128, 8, 78.5),
    ],
)
def test_limits_of_an_h200(name, tp, m, bits, us):
    assert case_limit_us(GPUS["h200"], case(name, tp, m, bits=bits)) == pytest.approx(us, abs=0.06)


def test_an_h200_is_bound_by_arithmetic_from_m_47_at_4_bits():
    assert crossover_m(GPUS["h200"], case("gate_up", 1, 1)) == pytest.approx(47, abs=1)
    assert crossover_m(GPUS["h200"], case("gate_up", 1, 1, bits=8)) == pytest.approx(93, abs=1)


def test_selection():
    cases = select_cases(["qwen2-72b"], (2, 8), (1, 16), [Coding(), Coding(bits=8)], None)
    assert len(cases) == 4 * 2 * 2 * 2
    assert [c.m for c in cases[:2]] == [1, 16]
    assert cases[0].part is cases[1].part
    # A layer with its own group keeps it unless one is asked for.
    (own, *_) = select_cases(["deepseek-v2-lite"], None, (1,), [Coding()], None)
    (asked, *_) = select_cases(["deepseek-v2-lite"], None, (1,), [Coding()], 128)
    assert (own.part.group, asked.part.group) == (64, 128)
    # One group over all of K has no order.
    assert not select_cases(["qwen2.5-vl"], None, (1,), [Coding(act_order=True)], -1)


def test_quick_names_parts_that_exist():
    cases = quick_cases((1, 64), [Coding()], None)
    assert len(cases) == 20
    assert any(c.part.k_start for c in cases)


def test_m():
    assert parse_m("1,16") == (1, 16)
    assert parse_m("full") == FULL_M
    assert {1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 127, 128, 129, 4096} <= set(parse_m("sweep"))
    assert list(SWEEP_M) == sorted(SWEEP_M) and SWEEP_M[-1] == 4096
    for text in ("0", "a", "", "1,-2"):
        with pytest.raises(ValueError, match="--m: got"):
            parse_m(text)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


@pytest.mark.parametrize("gpu", GPUS)
def test_without_a_gpu_the_limits_are_printed_as_limits(gpu, no_gpu, capsys):
    assert run.main(["--gpu", gpu, "--tp", "2", "--m", "1,64"]) == 0
    said = capsys.readouterr().out
    assert "Nothing is measured here" in said
    assert "LIMITS in microseconds, not measurements" in said
    assert "14784 x 8192" in said
    assert f"{case_limit_us(GPUS[gpu], case('down', 2, 64)):.1f}" in said


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--gpu", "b200"], "--gpu: got 'b200', expected one of h200, h100"),
        (["--bits", "3"], "got '3', expected some of 4, 8"),
        (["--model", "opt"], "--model: got 'opt', expected some of"),
    ],
)
def test_what_is_not_known_is_refused(arguments, said, no_gpu, capsys):
    assert run.main(arguments) == 2
    assert said in capsys.readouterr().out


def test_the_script_runs_from_anywhere():
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), "--quick"]
    environment = {"CUDA_VISIBLE_DEVICES": "", "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/")
    assert done.returncode == 0, done.stderr
    assert "3696 x 8192" in done.stdout
