# SPDX-License-Identifier: Apache-2.0
"""gemm and dequantize as users call them, on the CPU: shapes, strides, dtypes, refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import padmarlin
from padmarlin import functional
from tests.weights import random_weight

K, N = 100, 70


@pytest.fixture(scope="module")
def made():
    return random_weight(K, N, group_size=32, symmetric=False, k_start=8, seed=3)


def activations(*shape, seed=4, dtype=torch.float16):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def expected(a, dense, bias=None):
    total = a.double() @ dense.double()
    return total if bias is None else total + bias.double()


def assert_close(got, want, dtype=torch.float16):
    limit = 6e-4 if dtype == torch.float16 else 5e-3
    error = (got.double() - want).norm() / want.norm()
    assert got.shape == want.shape and error < limit, f"relative error {error:.2e}"


@pytest.mark.parametrize("shape", [(1, K), (5, K), (2, 3, K), (K,), (1, 0, K)])
def test_leading_dimensions(shape, made):
    a = activations(*shape)
    got = padmarlin.gemm(a, made.packed)
    assert got.dtype == torch.float16 and got.shape == (*shape[:-1], N)
    if a.numel():
        assert_close(got, expected(a, made.dense))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("scale", [0.001, 0.01, 0.2, 3.0])
@pytest.mark.parametrize("symmetric", [True, False])
def test_dequantize_is_exact_and_identity_activations_give_it_back(dtype, bits, scale, symmetric):
    made = random_weight(K, N, bits=bits, dtype=dtype, scale=scale, symmetric=symmetric)
    assert torch.equal(padmarlin.dequantize(made.packed), made.dense)
    assert torch.equal(padmarlin.gemm(torch.eye(K, dtype=dtype), made.packed), made.dense)


def test_no_rows():
    made = random_weight(K, N)
    assert padmarlin.gemm(activations(0, K), made.packed).shape == (0, N)


def test_bias_is_added_before_the_one_rounding(made):
    a, bias = activations(5, K), activations(N, seed=5)
    got = padmarlin.gemm(a, made.packed, bias)
    assert_close(got, expected(a, made.dense, bias))
    # 2048 + 1 has no fp16: adding after a rounding would give 2048 + 1 -> 2048, then + 1 -> 2048.
    ones = random_weight(K, N, scale=1.0, integers=True, seed=6)
    a = torch.zeros(1, K, dtype=torch.float16)
    column = int(ones.dense[0].argmax())
    a[0, 0] = 2048 + 2
    bias = torch.full((N,), 1.0, dtype=torch.float16)
    exact = torch.tensor(2050.0 * float(ones.dense[0, column]) + 1).half()
    assert padmarlin.gemm(a, ones.packed, bias)[0, column] == exact


def test_strided_rows_and_odd_offsets_are_read_in_place(made):
    buffer = torch.full((6, K + 13), float("nan"), dtype=torch.float16)
    view = buffer[1:, 3 : K + 3]
    view.copy_(activations(5, K))
    assert_close(padmarlin.gemm(view, made.packed), expected(view, made.dense))


def test_out_is_written_whatever_its_row_stride(made):
    a, bias = activations(5, K), activations(N, seed=5)
    buffer = torch.full((5, N + 9), float("nan"), dtype=torch.float16)
    out = buffer[:, 2 : N + 2]
    assert padmarlin.gemm(a, made.packed, bias, out=out) is out
    assert torch.equal(out, padmarlin.gemm(a, made.packed, bias))
    assert buffer[:, :2].isnan().all() and buffer[:, N + 2 :].isnan().all()
    out3 = torch.empty((1, 5, N), dtype=torch.float16)
    assert torch.equal(padmarlin.gemm(a[None], made.packed, bias, out=out3)[0], out)


def test_out_may_lie_beside_a_but_not_over_it(made):
    buffer = torch.zeros((5, K + N), dtype=torch.float16)
    a = buffer[:, :K]
    a.copy_(activations(5, K))
    padmarlin.gemm(a, made.packed, out=buffer[:, K:])
    assert torch.equal(buffer[:, K:], padmarlin.gemm(a.clone(), made.packed))
    with pytest.raises(ValueError, match="out: got a tensor that overlaps a"):
        padmarlin.gemm(a, made.packed, out=buffer[:, K - 1 : K - 1 + N])


def test_batch_invariance(made):
    a = activations(129, K)
    first = padmarlin.gemm(a[:1], made.packed, batch_invariant=True)
    for m in (7, 8, 9, 16, 17, 64, 65, 129):
        got = padmarlin.gemm(a[:m], made.packed, batch_invariant=True)
        assert torch.equal(got[:1], first), f"m = {m}"


BAD = {
    "weight": (lambda a, w: (a, "w"), {}, "weight: got str, expected a PaddedWeight"),
    "a_type": (lambda a, w: ([1.0], w), {}, "a: got list"),
    "a_dtype": (lambda a, w: (a.float(), w), {}, r"a: got torch.float32.*a\.to\(torch.float16\)"),
    "a_other_16_bits": (lambda a, w: (a.bfloat16(), w), {}, "repack with dtype=torch.bfloat16"),
    "a_k": (lambda a, w: (a[:, :-1], w), {}, r"a: got shape \(5, 99\), expected \(\.\.\., 100\)"),
    "a_scalar": (lambda a, w: (a[0, 0], w), {}, "a: got shape"),
    "a_device": (lambda a, w: (a.to("meta"), w), {}, "a: got meta, expected cpu"),
    "bias_shape": (lambda a, w: (a, w, a[0, :3]), {}, r"bias: got shape \(3,\), expected \(70,\)"),
    "bias_dtype": (lambda a, w: (a, w, torch.zeros(N)), {}, "bias: got torch.float32"),
    "out_shape": (lambda a, w: (a, w), {"out": torch.empty(5, 3).half()}, "out: got shape"),
    "out_dtype": (lambda a, w: (a, w), {"out": torch.empty(5, N)}, "out: got torch.float32"),
    "out_type": (lambda a, w: (a, w), {"out": 3}, "out: got int"),
    "a_sparse": (lambda a, w: (a.to_sparse(), w), {}, "a: got a tensor of layout torch.sparse_coo"),
    "a_nested": (lambda a, w: (torch.nested.nested_tensor([a]), w), {}, "a: got a nested tensor"),
    "batch_invariant": (lambda a, w: (a, w), {"batch_invariant": 1}, "got 1, expected a bool"),
    "out_rows_shared": (
        lambda a, w: (a, w),
        {"out": torch.empty(1, N, dtype=torch.float16).expand(5, N)},
        "out: got strides .0, 1., expected rows at least n = 70 apart",
    ),
    "out_strides": (
        lambda a, w: (a, w),
        {"out": torch.empty(N, 5, dtype=torch.float16).t()},
        "out: got strides",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_refused_by_name(case, made):
    arguments, keywords, message = BAD[case]
    with pytest.raises((TypeError, ValueError), match=message):
        padmarlin.gemm(*arguments(activations(5, K), made.packed), **keywords)


def test_autograd_is_refused_unless_switched_off(made):
    a = activations(2, K).requires_grad_()
    with pytest.raises(RuntimeError, match="requires grad.*no_grad"):
        padmarlin.gemm(a, made.packed)
    with torch.no_grad():
        padmarlin.gemm(a, made.packed)
    with torch.inference_mode():
        padmarlin.gemm(a, made.packed)


def test_forward_mode_differentiation_is_refused(made):
    """Without a formula torch would answer a tangent of zeros."""
    a, bias = activations(2, K), activations(N)

    def product(rows):
        return padmarlin.gemm(rows, made.packed)

    message = r"gemm: a: got a tensor with a tangent.*unpack_dual"
    with pytest.raises(RuntimeError, match=message):
        torch.func.jvp(product, (a,), (a,))
    with pytest.raises(RuntimeError, match=message):
        torch.func.jacfwd(product)(a)
    with torch.autograd.forward_ad.dual_level():
        with pytest.raises(RuntimeError, match=message):
            product(torch.autograd.forward_ad.make_dual(a, a))
        with pytest.raises(RuntimeError, match="gemm: bias: got a tensor with a tangent"):
            padmarlin.gemm(a, made.packed, torch.autograd.forward_ad.make_dual(bias, bias))
        inside = product(a)
    assert torch.equal(inside, product(a))


@pytest.mark.parametrize("argument", ["bias", "out", "weight.scales"])
def test_other_tensors_that_require_grad_are_refused(argument, made):
    weight, keywords = made.packed, {}
    if argument == "weight.scales":
        weight = replace(weight, scales=torch.nn.Parameter(weight.scales))
    else:
        shape = {"bias": (N,), "out": (2, N)}[argument]
        keywords[argument] = torch.zeros(shape, dtype=torch.float16).requires_grad_()
    with pytest.raises(RuntimeError, match=f"gemm: {argument}: got a tensor that requires grad"):
        padmarlin.gemm(activations(2, K), weight, **keywords)


def test_out_from_inference_mode(made):
    with torch.inference_mode():
        out = torch.empty(2, N, dtype=torch.float16)
        padmarlin.gemm(activations(2, K), made.packed, out=out)
    with pytest.raises(RuntimeError, match="gemm: out: got an inference tensor.*clone it"):
        padmarlin.gemm(activations(2, K), made.packed, out=out)


def test_dequantize_refuses_anything_else():
    with pytest.raises(TypeError, match="dequantize: weight: got Tensor"):
        padmarlin.dequantize(torch.zeros(3))


def plain_and_not(made):
    """Arguments of every kind, good and bad: (a, weight, bias, batch_invariant)."""
    a, weight, bias = activations(5, K), made.packed, activations(N)
    good = (a, weight, bias, False)
    others = [
        [activations(K), a[None], a[::2], a[:, :-1], a[0, 0], a.float(), a.bfloat16(), None, [1.0],
         a.to("meta"), a.to_sparse(), torch.nested.nested_tensor([a]), torch.nn.Parameter(a),
         a.clone().requires_grad_(), torch.empty(0, K, dtype=torch.float16)],
        [None, "w", replace(weight, scales=torch.nn.Parameter(weight.scales)), weight.to("meta")],
        [None, 1, bias[:3], bias[None], bias.float(), bias.to("meta"), torch.nn.Parameter(bias)],
        [True, 0, 1, None, "yes"],
    ]  # fmt: skip
    yield good
    for place, values in enumerate(others):
        for value in values:
            yield (*good[:place], value, *good[place + 1 :])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_what_is_called_plain_is_what_the_checks_let_pass(made):
    plain = 0
    for a, weight, bias, batch_invariant in plain_and_not(made):
        if functional._is_plain(a, weight, bias, batch_invariant):
            plain += 1
            functional._check(a, weight, bias)
            assert isinstance(batch_invariant, bool)
    assert plain == 7  # or the cheap test would never be of use


def test_an_out_that_is_called_plain_is_what_the_checks_let_pass(made):
    buffer = torch.empty(5 * (K + N) + 1, dtype=torch.float16)
    a = buffer[: 5 * K].view(5, K)
    behind = buffer[5 * K : -1].view(5, N)
    outs = [behind, behind[None], behind[:4], behind[:, :-1], behind.float(), behind.t(), None]
    outs += [buffer[start : start + 5 * N].view(5, N) for start in (0, 1, 5 * K - 1, 5 * K + 1)]
    outs += [torch.nn.Parameter(behind), torch.empty(5, 2 * N, dtype=torch.float16)[:, :N]]
    plain = [out for out in outs if functional._is_plain_out(out, a, made.packed)]
    for out in plain:
        functional._check_out(out, (5, N), a, made.packed)
    assert len(plain) == 2


def test_a_call_with_out_in_front_of_a_is_no_overlap(made):
    buffer = torch.empty(5 * (K + N), dtype=torch.float16)
    out, a = buffer[: 5 * N].view(5, N), buffer[5 * N :].view(5, K)
    a.copy_(activations(5, K))
    assert torch.equal(padmarlin.gemm(a, made.packed, out=out), padmarlin.gemm(a, made.packed))
    with pytest.raises(ValueError, match="out: got a tensor that overlaps a"):
        padmarlin.gemm(a, made.packed, out=buffer[5 * N - 1 : 10 * N - 1].view(5, N))
