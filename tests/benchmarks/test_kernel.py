# SPDX-License-Identifier: Apache-2.0
"""The kernel's name in a row: what the dispatcher explains, in a line."""

from __future__ import annotations

from benchmarks import kernel
from benchmarks.kernel import chosen, kernel_name, widest_copy
from benchmarks.weights import random_weight
from tests.benchmarks.double import make_case

TEXT = """M 1, K 14784, N 8192, 4 bits on h200: 132 SMs, sm_90, 4800 GB/s nominal
  kernel     mma.sync (sm_80 and up), 128 threads
  tile       8 x 256 (M x N), 64 of K at a time; 1 x 32 of them
  memory     6 stages
  schedule   stream-K over 132 blocks: 57 k-tiles each
  predicted  16.0 us: memory 14.5
"""


def test_the_explanation_in_a_line():
    assert chosen(TEXT) == [
        "mma.sync (sm_80 and up), 128 threads",
        "8 x 256 (M x N), 64 of K at a time; 1 x 32 of them",
        "stream-K over 132 blocks: 57 k-tiles each",
        "16.0 us: memory 14.5",
    ]
    assert chosen("M x N has more tiles than a grid can count: refused") == []


def test_the_dispatcher_is_asked_for_the_gpu_that_ran(monkeypatch):
    asked = {}

    def explain(gpu, **problem):
        asked.update(gpu=gpu, **problem)
        return TEXT

    monkeypatch.setattr(kernel, "explain_gemm", explain)
    monkeypatch.setattr(kernel, "named_devices", lambda: ("h200", "a100"))
    monkeypatch.setattr(kernel, "extension_status", lambda: type("S", (), {"available": True}))
    case = make_case(k=200, n=50, k_start=200, group=128, m=3, symmetric=False)
    weight = random_weight(case, "cpu").repack()
    said = kernel_name("NVIDIA H200", case, weight)
    assert said.startswith("padmarlin ") and "stream-K over 132 blocks" in said
    assert (asked["gpu"], asked["m"], asked["k"], asked["asymmetric"]) == ("h200", 3, 200, True)
    assert asked["padded_k"] == weight.padded_k and asked["weight_bytes"] == weight.nbytes
    # One that the table does not know is not passed off as another.
    assert "stream-K" not in kernel_name("NVIDIA B300", case, weight)


def test_the_widest_copy():
    def width(k, k_start=0):
        case = make_case(m=2, k=k, k_start=k_start, group=128)
        return widest_copy(random_weight(case, "cpu").repack())

    assert [width(k) for k in (128, 132, 130, 129)] == [16, 8, 4, 2]
    assert width(200, 200) == 16
    assert width(192, 196) == 16  # whatever stands in front: csrc/torch/gemm.cpp asks A alone
