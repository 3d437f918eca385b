# SPDX-License-Identifier: Apache-2.0
"""The operators as torch sees them: opcheck, torch.compile, fakes, and checks of raw calls."""

from __future__ import annotations

import pytest
import torch

import padmarlin
from padmarlin.packing import Packing
from tests.weights import random_weight, random_words

K, N = 96, 70


def arguments(made, bias=None, batch_invariant=False):
    w = made.packed
    return [
        w.qweight, w.scales, w.zeros, w.slice_rows, w.columns, bias,
        w.k, w.n, w.bits, w.front_pad, int(w.dequant), batch_invariant,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def made():
    return random_weight(K, N, group_size=32, seed=1)


@pytest.fixture(scope="module")
def a():
    return torch.randn(5, K, generator=torch.Generator().manual_seed(2)).half()


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
def test_opcheck_gemm(act_order, symmetric, a):
    made = random_weight(K, N, group_size=32, act_order=act_order, symmetric=symmetric)
    bias = torch.zeros(N, dtype=torch.float16)
    torch.library.opcheck(torch.ops.padmarlin.gemm.default, [a, *arguments(made, bias)])
    out = torch.empty(5, N, dtype=torch.float16)
    torch.library.opcheck(torch.ops.padmarlin.gemm_out.default, [out, a, *arguments(made)])


def weight_arguments(made):
    """The same without bias and batch_invariant: dequantize's."""
    return [*arguments(made)[:5], *arguments(made)[6:11]]


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
def test_opcheck_dequantize(act_order, symmetric):
    made = random_weight(K, N, group_size=32, act_order=act_order, symmetric=symmetric)
    raw = weight_arguments(made)
    torch.library.opcheck(torch.ops.padmarlin.dequantize.default, raw)
    assert torch.equal(torch.ops.padmarlin.dequantize(*raw), made.dense)


@pytest.mark.parametrize("packing", Packing)
def test_opcheck_repack(packing):
    words = random_words(64, N + 3, packing, 4, seed=3)
    rows = torch.arange(64, dtype=torch.int32)
    slices = torch.zeros(4, dtype=torch.int32)
    torch.library.opcheck(
        torch.ops.padmarlin.repack.default, [words, rows, slices, None, packing, 3, N, 4, 3]
    )


def test_compile_without_graph_breaks_for_any_m(made):
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda a, bias: torch.relu(padmarlin.gemm(a, made.packed, bias)) + 1,
        fullgraph=True,
        dynamic=True,
        backend="aot_eager",
    )
    bias = torch.randn(N, generator=torch.Generator().manual_seed(4)).half()
    for m in (1, 5, 33):
        a = torch.randn(m, K, generator=torch.Generator().manual_seed(m)).half()
        assert torch.equal(compiled(a, bias), torch.relu(padmarlin.gemm(a, made.packed, bias)) + 1)


def test_compile_with_out(made, a):
    torch._dynamo.reset()

    def into(out, a):
        return padmarlin.gemm(a, made.packed, out=out)

    out = torch.empty(5, N, dtype=torch.float16)
    torch.compile(into, fullgraph=True, backend="aot_eager")(out, a)
    assert torch.equal(out, padmarlin.gemm(a, made.packed))


@pytest.mark.parametrize("shape", [(K,), (2, 5, K), (3, 1, 2, K), (0, 4, K), (2, 0, K)])
def test_activations_of_any_dimension(made, shape):
    a = torch.randn(shape, generator=torch.Generator().manual_seed(1)).half()
    want = padmarlin.gemm(a.reshape(-1, K), made.packed).view(*shape[:-1], N)
    raw = arguments(made)
    assert torch.equal(torch.ops.padmarlin.gemm(a, *raw), want)
    out = torch.empty_like(want)
    torch.ops.padmarlin.gemm_out(out, a, *raw)
    assert torch.equal(out, want)
    assert torch.equal(padmarlin.gemm(a, made.packed), want)
    meta = [v.to("meta") if isinstance(v, torch.Tensor) else v for v in raw]
    assert torch.ops.padmarlin.gemm(a.to("meta"), *meta).shape == want.shape
    if len(shape) > 2:
        torch.library.opcheck(torch.ops.padmarlin.gemm.default, [a, *raw])
    strided = torch.stack([a, a], dim=-1)[..., 0]  # not contiguous: rows are copied first
    assert torch.equal(padmarlin.gemm(strided, made.packed), want)


def test_a_scalar_is_refused(made):
    for device in ("cpu", "meta"):
        raw = [v.to(device) if isinstance(v, torch.Tensor) else v for v in arguments(made)]
        with pytest.raises(ValueError, match=r"gemm: a: got \(\), expected \(\.\.\., "):
            torch.ops.padmarlin.gemm(torch.tensor(1.0, device=device).half(), *raw)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("wrong", ["broadcast", "columns", "dtype"])
def test_an_output_that_does_not_fit_is_refused(made, a, device, wrong):
    """copy_ alone would fill several copies of the result, or convert it."""
    shape, dtype = {
        "broadcast": ((2, *a.shape[:-1], N), a.dtype),
        "columns": ((*a.shape[:-1], N + 1), a.dtype),
        "dtype": ((*a.shape[:-1], N), torch.float32),
    }[wrong]
    out = torch.empty(shape, dtype=dtype, device=device)
    raw = [v.to(device) if isinstance(v, torch.Tensor) else v for v in arguments(made)]
    with pytest.raises(ValueError, match="gemm: out: got"):
        torch.ops.padmarlin.gemm_out(out, a.to(device), *raw)


def test_autograd_through_the_raw_operator_is_refused(made, a):
    with pytest.raises(RuntimeError, match="no_grad"):
        torch.ops.padmarlin.gemm(a.clone().requires_grad_(), *arguments(made)).sum().backward()


RAW = {
    "qweight dtype": (0, lambda t: t.float(), "qweight"),
    "qweight size": (0, lambda t: t[:, :, :-1], "qweight"),
    "scales dtype": (1, lambda t: t.float(), "scales"),
    "scales size": (1, lambda t: t[:, :-1], "scales"),
    "slice_rows": (3, lambda t: t[:-1], "slice_rows"),
    "columns": (4, lambda t: torch.zeros(3, dtype=torch.int32), "columns"),
    "bias": (5, lambda t: torch.zeros(3, dtype=torch.float16), "bias"),
    "k": (6, lambda v: v + 1, "gemm: a"),
    "n": (7, lambda v: v + 64, "n"),
    "bits": (8, lambda v: 3, "bits"),
    "front_pad": (9, lambda v: 40, "front_pad"),
    "dequant": (10, lambda v: 2, "dequant"),
}


RAW_REPACK = {
    "words dtype": (0, lambda t: t.float(), "words"),
    "words size": (0, lambda t: t[:, :-1], "words"),
    "no words": (0, lambda t: t[:0], "words"),
    "source_rows": (1, lambda t: t[:-1], "source_rows"),
    "slice_rows": (2, lambda t: t[:-1], "slice_rows"),
    "pad_codes": (3, lambda t: torch.zeros((1, 3), dtype=torch.uint8), "pad_codes"),
    "packing": (4, lambda v: 3, "packing"),
    "AWQ with 8 bits": (7, lambda v: 8, "packing"),
    "first_column": (5, lambda v: -1, "first_column"),
    "columns": (5, lambda v: v + 8, "words"),
    "n": (6, lambda v: 0, "words"),
    "bits": (7, lambda v: 3, "bits"),
}


@pytest.mark.parametrize("case", RAW_REPACK)
def test_raw_repack_stays_in_bounds(case):
    index, change, message = RAW_REPACK[case]
    words = random_words(64, N + 2, Packing.AWQ, 4, seed=5)
    rows, slices = torch.arange(64, dtype=torch.int32), torch.zeros(4, dtype=torch.int32)
    raw = [words, rows, slices, None, Packing.AWQ, 2, N, 4, 3]
    assert torch.ops.padmarlin.repack(*raw).shape == (2, 1, 512)
    raw[index] = change(raw[index])
    with pytest.raises(ValueError, match=f"repack: {message}: got"):
        torch.ops.padmarlin.repack(*raw)


@pytest.mark.parametrize("case", RAW)
def test_raw_calls_stay_in_bounds(case, made, a):
    index, change, message = RAW[case]
    raw = arguments(made)
    raw[index] = change(raw[index])
    with pytest.raises(ValueError, match=message):
        torch.ops.padmarlin.gemm(a, *raw)
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        meta = [v.to("meta") if isinstance(v, torch.Tensor) else v for v in raw]
        torch.ops.padmarlin.gemm(a.to("meta"), *meta)


RAW_DEQUANTIZE = {
    "qweight dtype": (0, lambda t: t.float(), "qweight"),
    "qweight size": (0, lambda t: t[:, :, :-1], "qweight"),
    "scales dtype": (1, lambda t: t.float(), "scales"),
    "scales size": (1, lambda t: t[:, :-1], "scales"),
    "zeros": (2, lambda t: torch.zeros((1, 1), dtype=torch.int16), "zeros"),
    "slice_rows": (3, lambda t: t[:-1], "slice_rows"),
    "columns": (4, lambda t: torch.zeros(3, dtype=torch.int32), "columns"),
    "k": (5, lambda v: v + 64, "front_pad"),
    "n": (6, lambda v: v + 64, "n"),
    "bits": (7, lambda v: 3, "bits"),
    "front_pad": (8, lambda v: 40, "front_pad"),
    "dequant": (9, lambda v: 2, "dequant"),
}


@pytest.mark.parametrize("case", RAW_DEQUANTIZE)
def test_raw_dequantize_stays_in_bounds(case, made):
    index, change, message = RAW_DEQUANTIZE[case]
    raw = weight_arguments(made)
    raw[index] = change(raw[index])
    for device in ("cpu", "meta"):
        there = [v.to(device) if isinstance(v, torch.Tensor) else v for v in raw]
        with pytest.raises(ValueError, match=f"dequantize: {message}: got"):
            torch.ops.padmarlin.dequantize(*there)
