# SPDX-License-Identifier: Apache-2.0
"""csrc/torch/gemm.cpp and scratch.cpp on CPU tensors, their kernels on the emulator, against the
dense weight: which columns and rows each step gets, and when torch's matmul is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import torch

from padmarlin.functional import operator_arguments
from tests.weights import random_weight

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")

SENTINEL = 7.25  # what `out` holds where nothing may be written


class Matmul:
    """aten::mm.dtype_out for the CPU, which torch lacks: fp32 sums, as the CUDA one's."""

    def __init__(self):
        self.calls = []
        self.refuses = False

    def __call__(self, a, weights, out_dtype, *, out):
        assert not self.refuses, "the test refuses"
        assert out_dtype == out.dtype == torch.float32
        assert out.shape == (a.shape[0], weights.shape[1])
        assert weights.data_ptr() % 16 == 0 and weights.stride(0) % 64 == 0
        self.calls.append((tuple(a.shape), tuple(weights.shape)))
        return out.copy_(a.float() @ weights.float())


@pytest.fixture(scope="module")
def library():
    from tests.host.build import library

    torch.ops.load_library(str(library()))
    return torch.ops.padmarlin_host


@pytest.fixture
def matmul():
    registered = torch.library.Library("aten", "IMPL")
    made = Matmul()
    registered.impl("mm.dtype_out", made, "CPU")
    yield made
    registered._destroy()


def activations(m, k, dtype, *, gap=0, offset=0, seed=1):
    generator = torch.Generator().manual_seed(seed)
    memory = torch.full((offset + m * (k + gap) + 8,), float("nan"), dtype=dtype)
    a = memory.as_strided((m, k), (k + gap, 1), offset)
    return a.copy_(torch.randn(m, k, generator=generator))


def check(library, made, a, bias=None, *, rows, columns, gap=0, offset=0):
    """Exactly the fp32 sums of the dense weight, rounded once; nothing written elsewhere."""
    m, n, dtype = a.shape[0], made.packed.n, a.dtype
    memory = torch.full((offset + m * (n + gap) + 64,), SENTINEL, dtype=dtype)
    size = (m, n), (n + gap, 1), offset
    out = memory.as_strided(*size)
    arguments = operator_arguments(made.packed, bias, False)
    assert library.by_chunks(out, a, *arguments, rows, columns)
    untouched = torch.ones(memory.shape, dtype=torch.bool)
    untouched.as_strided(*size).fill_(False)
    assert (memory[untouched] == SENTINEL).all(), "written outside of out"
    # Chunk by chunk: the host's matmul may add in another order for another number of columns.
    for row in range(0, m, rows):
        for column in range(0, n, columns):
            dense = torch.zeros(a.shape[1], columns)
            part = made.dense[:, column : column + columns].float()
            dense[:, : part.shape[1]] = part
            want = (a[row : row + rows].float() @ dense)[:, : part.shape[1]]
            if bias is not None:
                want += bias[column : column + columns].float()
            got = out[row : row + rows, column : column + columns]
            close = torch.isclose(got.float(), want.to(dtype).float(), rtol=0, atol=0)
            near = torch.isclose(got.float(), want, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)
            assert near.all(), (row, column, (~near).nonzero()[0].tolist())
            assert close.float().mean() > 0.99, (row, column)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("more", [{}, {"k_start": 40}, {"act_order": True}], ids=str)
def test_every_kind_of_weight(library, matmul, dtype, bits, symmetric, more):
    made = random_weight(
        139, 300, bits=bits, group_size=32, symmetric=symmetric, dtype=dtype, seed=bits, **more
    )
    a = activations(21, 139, dtype)
    bias = torch.linspace(-1, 1, 300).to(dtype)
    check(library, made, a, bias, rows=8, columns=128)
    # Columns are dequantized once, then all rows are multiplied; columns are padded to 64.
    widths = [128] * 3 + [128] * 3 + [64] * 3
    assert matmul.calls == [
        ((rows, 139), (139, width)) for rows, width in zip([8, 8, 5] * 3, widths, strict=True)
    ]


@pytest.mark.parametrize("rows, columns", [(64, 256), (1, 64), (7, 192), (5, 64)])
def test_any_chunks(library, matmul, rows, columns):
    for m, k, n in [(1, 1, 1), (11, 64, 65), (16, 100, 192), (7, 200, 257)]:
        check(library, random_weight(k, n, group_size=32), activations(m, k, torch.float16),
              rows=min(rows, m), columns=min(columns, -(-n // 64) * 64))  # fmt: skip


@pytest.mark.parametrize("gap, offset", [(0, 0), (8, 8), (1, 0), (0, 3), (5, 1)])
def test_activations_and_output_of_any_address_and_stride(library, matmul, gap, offset):
    for n in (128, 139):
        a = activations(9, 99, torch.float16, gap=gap, offset=offset)
        made = random_weight(99, n, group_size=32)
        check(library, made, a, made.dense[0], rows=4, columns=64, gap=gap, offset=offset)


def test_a_refused_matmul_is_told(library, matmul):
    made, a = random_weight(64, 64), activations(3, 64, torch.float16)
    matmul.refuses = True
    out = torch.empty(3, 64, dtype=torch.float16)
    assert not library.by_chunks(out, a, *operator_arguments(made.packed, None, False), 3, 64)


def collapsing(m, k):
    """The same rows in every arrangement that collapses, and in some that do not."""
    a = activations(m, k, torch.float16)
    wide = activations(m, k, torch.float16, gap=5)
    wide.copy_(a)
    return {
        "matrix": (a, True),
        "pitched": (wide, True),
        "contiguous": (a.view(2, m // 2, k), True),
        "pitched in three": (wide.view(2, m // 2, k), True),
        "of one element each": (wide.view(1, 2, 1, m // 2, 1, k), True),
        "odd strides of one element": (a.view(m, k).as_strided((1, m, k), (7, k, 1)), True),
        "transposed": (a.view(2, m // 2, k).transpose(0, 1), False),
        "a gap in the middle": (
            wide.as_strided((2, m // 2 - 1, k), (m // 2 * (k + 5), k + 5, 1)),
            False,
        ),
        "columns apart": (a.t().contiguous().t(), False),
    }


@pytest.mark.parametrize("name", collapsing(8, 99))
def test_activations_of_any_dimension(library, matmul, name):
    """The fused kernel's stand-in marks exactly the rows that it is told to write."""
    a, collapses = collapsing(8, 99)[name]
    made = random_weight(99, 70, group_size=32)
    arguments = operator_arguments(made.packed, None, False)
    if not collapses:
        with pytest.raises(RuntimeError, match=r"padmarlin.gemm: a has stride.*pass a.contiguous"):
            library.gemm(a, *arguments)
        return
    got = library.gemm(a, *arguments)
    assert got.shape == (*a.shape[:-1], 70) and (got == 4).all()
    memory = torch.full((8, 75), SENTINEL, dtype=torch.float16)
    out = memory[:, :70].view(*a.shape[:-1], 70)
    library.gemm_out(out, a, *arguments)
    assert (memory[:, :70] == 4).all() and (memory[:, 70:] == SENTINEL).all()


def test_an_output_that_does_not_fit_is_refused(library):
    a = activations(8, 99, torch.float16).view(2, 4, 99)
    arguments = operator_arguments(random_weight(99, 70, group_size=32).packed, None, False)

    def refused(out, message):
        with pytest.raises(RuntimeError, match=f"padmarlin.gemm: out {message}"):
            library.gemm_out(out, a, *arguments)

    refused(torch.empty(8, 70).half(), r"has shape \(8, 70\), expected \(2, 4, 70\)")
    refused(torch.empty(2, 4, 71).half(), r"has shape \(2, 4, 71\), expected \(2, 4, 70\)")
    refused(torch.empty(4, 2, 70).half().transpose(0, 1), r"has strides \(70, 140, 1\)")
    refused(torch.empty(2, 4, 140).half()[..., ::2], "has stride 2 in its last dimension")
    refused(torch.empty(70).half().expand(2, 4, 70), "has row stride 0, expected at least n = 70")
    with pytest.raises(RuntimeError, match=r"a has shape \(\), expected \(\.\.\., 99\)"):
        library.gemm(torch.tensor(1.0).half(), *arguments)
    with pytest.raises(RuntimeError, match=r"a has shape \(2, 4, 98\), expected \(\.\.\., 99\)"):
        library.gemm(a[..., :98], *arguments)


# The dispatcher, in a process of its own: the variables are read once, and a refusal is remembered.
# A fused kernel marks its rows with 4.0.
SCRIPT = """
import torch
from tests.host.build import library
from tests.host.test_scratch_path import Matmul
from padmarlin.functional import operator_arguments
from tests.weights import random_weight
torch.ops.load_library(str(library()))
ops, matmul = torch.ops.padmarlin_host, Matmul()
registered = torch.library.Library("aten", "IMPL")
registered.impl("mm.dtype_out", matmul, "CPU")
weights = {4: random_weight(100, 130, group_size=32, act_order=True),
           8: random_weight(100, 130, group_size=32, bits=8)}
def told(bits=4, m=700, pitch=104, invariant=False):
    made = weights[bits]
    a = torch.randn(m, pitch, generator=torch.Generator().manual_seed(1)).half()[:, :100]
    want = (a.float() @ made.dense.float()).half()
    try:
        got = ops.gemm.default(a, *operator_arguments(made.packed, None, invariant))
        cube = a[: m // 2 * 2].view(2, m // 2, 100)
        again = ops.gemm.default(cube, *operator_arguments(made.packed, None, invariant))
        assert torch.equal(again.view(-1, 130), got[: m // 2 * 2])
    except RuntimeError as error:
        return str(error)
    if (got == 4).all():
        return "fused"
    return "scratch" if torch.allclose(got.float(), want.float(), atol=1e-2) else "wrong"
"""


def run_alone(code, **variables):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT + code], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd(), **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "variables, said",
    [
        ({}, "fused"),
        ({"PADMARLIN_KERNEL": "auto", "PADMARLIN_SCRATCH": "1"}, "fused"),
        ({"PADMARLIN_KERNEL": "scratch"}, "scratch"),
        ({"PADMARLIN_KERNEL": "scratch", "PADMARLIN_SCRATCH": "1"}, "scratch"),
        ({"PADMARLIN_KERNEL": "mma", "PADMARLIN_SCRATCH": "0"}, "fused"),
        (
            {"PADMARLIN_KERNEL": "scratch", "PADMARLIN_SCRATCH": "0"},
            "padmarlin.gemm: PADMARLIN_KERNEL is 'scratch', expected 'auto' or 'mma': the scratch "
            "kernel is forbidden by PADMARLIN_SCRATCH=0",
        ),
        (
            {"PADMARLIN_SCRATCH": "off"},
            "padmarlin.gemm: PADMARLIN_SCRATCH is 'off', expected 0 or 1; unset it",
        ),
    ],
    ids=str,
)
def test_what_the_variables_do(library, variables, said):
    (line,) = run_alone("print(told())", **variables)
    assert line.endswith(said), line


def test_the_scratch_refuses_batch_invariance(library):
    (line,) = run_alone("print(told(invariant=True))", PADMARLIN_KERNEL="scratch")
    assert "the scratch kernel is not with batch_invariant: one kernel family for every M" in line


def test_a_refusal_of_torch_is_an_error_where_the_scratch_was_asked_for(library):
    code = "matmul.refuses = True\nprint(told())\nmatmul.refuses = False\nprint(told())"
    first, second = run_alone(code, PADMARLIN_KERNEL="scratch")
    assert "PADMARLIN_KERNEL is 'scratch', but torch refuses a product of float16" in first
    assert "docs/scratch.md" in first
    assert second == "scratch"  # asked again: the user said so


def test_a_measurement_takes_the_scratch_from_its_row_on(library):
    """build.MADE_UP; of any alignment: the row is that of aligned activations alone."""
    code = (
        "print(*(told(8, m) for m in (1, 499, 500, 2000)), told(8, 500, pitch=101), told(4, 2000))"
    )
    (line,) = run_alone(code)
    assert line == "fused fused scratch scratch fused fused"
    (line,) = run_alone(code, PADMARLIN_SCRATCH="0")
    assert line == " ".join(["fused"] * 6)
    (line,) = run_alone("print(told(8, 500, invariant=True))")
    assert line == "fused"


def test_where_torch_refuses_a_fused_kernel_takes_over_for_good(library):
    code = (
        "matmul.refuses = True\nprint(told(8))\n"
        "matmul.refuses = False\nprint(told(8), len(matmul.calls))"
    )
    assert run_alone(code) == ["fused", "fused 0"]
