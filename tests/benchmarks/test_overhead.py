# SPDX-License-Identifier: Apache-2.0
"""The overhead benchmark: its empty operators are empty, its checks are the real ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from unittest import mock

import pytest
import torch

import padmarlin
from benchmarks import overhead
from padmarlin import functional

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("c++") is None, reason="needs a C++ compiler"
)


@pytest.fixture(scope="module")
def checked():
    """padmarlin.gemm on the compiled checks, as the benchmark measures it without a GPU."""
    for name in ("empty", "checked"):
        torch.ops.load_library(str(overhead.build(name)))
    operators = torch.ops.padmarlin_checked
    with (
        mock.patch.object(functional, "_gemm", operators.gemm.default),
        mock.patch.object(functional, "_gemm_out", operators.gemm_out.default),
    ):
        yield overhead.example("cpu")


def test_the_empty_operators_give_back_what_they_got(checked):
    weight, a, _ = checked
    empty = torch.ops.padmarlin_empty
    arguments = functional.operator_arguments(weight, None, False)
    assert empty.one.default(a).data_ptr() == a.data_ptr()
    assert empty.gemm.default(a, *arguments).data_ptr() == a.data_ptr()
    names = [argument.name for argument in empty.gemm.default._schema.arguments]
    real = [argument.name for argument in torch.ops.padmarlin.gemm.default._schema.arguments]
    assert names == real


def test_the_checks_are_those_of_the_library(checked):
    weight, a, bias = checked
    assert padmarlin.gemm(a, weight, bias).shape == (1, weight.n)
    assert padmarlin.gemm(a[None], weight).shape == (1, 1, weight.n)
    op = torch.ops.padmarlin_checked.gemm.default
    arguments = functional.operator_arguments(weight, None, False)
    with pytest.raises(RuntimeError, match=r"padmarlin.gemm: a has shape \(1, 1023\)"):
        op(a[:, :-1], *arguments)
    with pytest.raises(RuntimeError, match="slice_rows has shape"):
        op(a, *arguments[:3], weight.slice_rows[:-1], *arguments[4:])


@pytest.mark.parametrize(
    "value, invariant, expected",
    [
        ("", False, "ran"),
        ("auto", True, "ran"),
        ("mma", True, "ran"),
        # The stand-in's H200 is one of a build without the wgmma kernel.
        ("wgmma", False, "padmarlin.gemm: PADMARLIN_KERNEL is 'wgmma', expected 'auto' or 'mma'"),
        ("Mma", False, "padmarlin.gemm: PADMARLIN_KERNEL is 'Mma', expected auto, mma, wgmma or "),
    ],
)
def test_a_kernel_that_cannot_be_forced_is_refused(checked, value, invariant, expected):
    """In a process of its own: the variable is read once."""
    code = f"""
import sys
import torch
from benchmarks import overhead
from padmarlin import functional
torch.ops.load_library({str(overhead.build("checked"))!r})
weight, a, _ = overhead.example("cpu")
try:
    torch.ops.padmarlin_checked.gemm.default(
        a, *functional.operator_arguments(weight, None, {invariant}))
    print("ran")
except RuntimeError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=overhead.ROOT, capture_output=True, text=True,
        env={**os.environ, "PADMARLIN_KERNEL": value, "PYTHONPATH": str(overhead.ROOT)},
    )  # fmt: skip
    assert expected in done.stdout, done.stdout + done.stderr


def test_costs_are_medians_above_the_empty_operators(monkeypatch):
    times = {"one": [1.0, 2.0, 9.0], "same": [3.0, 3.0, 3.0], "gemm": [7.0, 5.0, 6.0]}
    left = {name: [0.0, *of] for name, of in times.items()}  # a batch of warm-up first
    monkeypatch.setattr(overhead, "batch_us", lambda name, size: left[name].pop(0))
    one, same, gemm = overhead.measure({name: name for name in times}, batches=3)
    assert (one.us, same.us, gemm.us, gemm.fastest_us) == (2.0, 3.0, 6.0, 5.0)
    assert (gemm.above_empty_us, gemm.above_same_us) == (4.0, 3.0)


def test_the_command(checked, tmp_path, capsys, monkeypatch):
    here = overhead.measure_here
    monkeypatch.setattr(overhead, "measure_here", lambda: here(batches=2, size=20))
    assert overhead.main(["--out", str(tmp_path / "x.jsonl")]) == 0
    said = capsys.readouterr().out
    assert "no GPU: CPU tensors, nothing launched" in said
    assert "goal: at most 6.0 us above an empty operator of one tensor: " in said
    found = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [row["what"] for row in found][:2] == [
        "empty operator, one tensor",
        "empty operator, gemm's arguments",
    ]
    assert len(found) == 7 and all(row["us"] > 0 for row in found)
