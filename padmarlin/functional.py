# SPDX-License-Identifier: Apache-2.0
"""``gemm`` and ``dequantize`` on a :class:`~padmarlin.weight.PaddedWeight`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from padmarlin import _extension, ops, reference
from padmarlin.errors import check_data, check_strided, refusal
from padmarlin.weight import PaddedWeight

_ = ops  # defines torch.ops.padmarlin

# Resolved once: a decode step calls hundreds of times and waits for nothing else.
_gemm = torch.ops.padmarlin.gemm.default
_gemm_out = torch.ops.padmarlin.gemm_out.default
_dequantize = torch.ops.padmarlin.dequantize.default


def gemm(
    a: Tensor,
    weight: PaddedWeight,
    bias: Tensor | None = None,
    *,
    out: Tensor | None = None,
    batch_invariant: bool = False,
) -> Tensor:
    """``a @ dequantize(weight) + bias``, products summed in fp32 and rounded once.

    Args:
        a: (..., k), the weight's dtype and device. Rows may have any stride (their elements are
            adjacent); a 2-D or contiguous ``a`` is read in place.
        weight: from ``repack_*`` or ``load_weight``.
        bias: (n), the weight's dtype; added in fp32 before the rounding.
        out: (..., n), the weight's dtype, elements of a row adjacent, contiguous if it has more
            than two dimensions, not overlapping ``a``; written and returned.
        batch_invariant: a row's bits depend neither on the number of rows nor on the others.

    Returns:
        (..., n). The same call gives the same bits, run after run, on the same GPU model.

    Raises:
        TypeError, ValueError: an argument that does not fit, named with its remedy.
        RuntimeError: inputs that require grad or carry a tangent; CUDA tensors without a CUDA
            build.
    """
    if not _is_plain(a, weight, bias, batch_invariant):
        _check(a, weight, bias)
        if not isinstance(batch_invariant, bool):
            raise TypeError(refusal("gemm", "batch_invariant", repr(batch_invariant), "a bool"))
    # The operator takes rows of one stride as they are; a view costs a microsecond.
    as_it_is = a.dim() == 2 or a.is_contiguous()
    rows = a if as_it_is else a.reshape(-1, weight.k)
    arguments = operator_arguments(weight, bias, batch_invariant)
    if out is None:
        result = _gemm(rows, *arguments)
        return result if as_it_is else result.view(*a.shape[:-1], weight.n)
    if not _is_plain_out(out, a, weight):
        _check_out(out, (*a.shape[:-1], weight.n), rows.reshape(-1, weight.k), weight)
    _gemm_out(out if as_it_is else out.view(-1, weight.n), rows, *arguments)
    return out


def operator_arguments(
    weight: PaddedWeight, bias: Tensor | None, batch_invariant: bool
) -> tuple[Any, ...]:
    """What the operators of :mod:`padmarlin.ops` take behind ``a``."""
    return (
        weight.qweight,
        weight.scales,
        weight.zeros,
        weight.slice_rows,
        weight.columns,
        bias,
        weight.k,
        weight.n,
        weight.bits,
        weight.front_pad,
        int(weight.dequant),
        batch_invariant,
    )


def dequantize(weight: PaddedWeight) -> Tensor:
    """The logical weight (k, n) in the weight's dtype, rows in the checkpoint's order.

    Exact: (q - z) * s with one rounding. Materialises k * n elements.
    """
    _check_weight("dequantize", weight)
    check_data("dequantize", "weight", weight.qweight)
    # The reference runs on any device: a build without kernels still dequantizes.
    without_kernels = weight.device.type == "cuda" and not _extension.extension_status().available
    compute = reference.dequantize if without_kernels else _dequantize
    return compute(
        weight.qweight,
        weight.scales,
        weight.zeros,
        weight.slice_rows,
        weight.columns,
        weight.k,
        weight.n,
        weight.bits,
        weight.front_pad,
        int(weight.dequant),
    )


def _check_weight(function: str, weight: object) -> None:
    if not isinstance(weight, PaddedWeight):
        remedy = "make one with padmarlin.repack_* or padmarlin.load_weight"
        raise TypeError(
            refusal(function, "weight", type(weight).__name__, "a PaddedWeight", remedy)
        )


def _is_plain(a: object, weight: object, bias: object, batch_invariant: object) -> bool:
    """Whether there is nothing to refuse, told in a microsecond.

    False says nothing yet: it may be a subclass, or grad may be off. Then `_check` looks closer.
    """
    if type(a) is not Tensor or type(weight) is not PaddedWeight:
        return False
    scales = weight.scales
    return (
        not _is_differentiating_forward()
        and _is_like(a, scales)
        and a.dim() > 0
        and a.shape[-1] == weight.k
        and (
            bias is None
            or (type(bias) is Tensor and _is_like(bias, scales) and bias.shape == (weight.n,))
        )
        and not scales.requires_grad
        and type(batch_invariant) is bool
        and not (a.is_cuda and not _extension.extension_status().available)
    )


def _is_like(tensor: Tensor, scales: Tensor) -> bool:
    return (
        tensor.dtype == scales.dtype
        and tensor.device == scales.device
        and tensor.layout == torch.strided
        and not tensor.is_nested
        and not tensor.requires_grad
    )


def _is_plain_out(out: object, a: Tensor, weight: PaddedWeight) -> bool:
    """The same of ``out``: two contiguous tensors, one behind the other."""
    return (
        type(out) is Tensor
        and not torch.compiler.is_compiling()  # there, addresses mean nothing
        and _is_like(out, weight.scales)
        and out.shape[-1:] == (weight.n,)
        and out.shape[:-1] == a.shape[:-1]
        and out.is_contiguous()
        and a.is_contiguous()
        and not out.is_inference()
        and (
            out.data_ptr() + out.nbytes <= a.data_ptr() or a.data_ptr() + a.nbytes <= out.data_ptr()
        )
    )


def _check(a: object, weight: object, bias: object) -> None:
    _check_weight("gemm", weight)
    assert isinstance(weight, PaddedWeight)
    if not isinstance(a, Tensor):
        raise TypeError(refusal("gemm", "a", type(a).__name__, "a Tensor"))
    _check_like("a", a, weight)
    if a.dim() == 0 or a.shape[-1] != weight.k:
        raise ValueError(
            refusal("gemm", "a", f"shape {tuple(a.shape)}", f"(..., {weight.k}): the weight's k")
        )
    if bias is not None:
        if not isinstance(bias, Tensor):
            raise TypeError(refusal("gemm", "bias", type(bias).__name__, "a Tensor or None"))
        _check_like("bias", bias, weight)
        if tuple(bias.shape) != (weight.n,):
            raise ValueError(
                refusal("gemm", "bias", f"shape {tuple(bias.shape)}", f"({weight.n},)")
            )
    for argument, tensor in (("a", a), ("bias", bias), ("weight.scales", weight.scales)):
        _check_inference(argument, tensor)
    if a.is_cuda:
        _extension.require_extension("gemm")


def _check_inference(argument: str, tensor: Tensor | None) -> None:
    if tensor is None:
        return
    if tensor.requires_grad and torch.is_grad_enabled():
        remedy = "call it under torch.no_grad() or torch.inference_mode()"
        got = "a tensor that requires grad"
        raise RuntimeError(refusal("gemm", argument, got, "inference", remedy))
    if _is_differentiating_forward() and forward_ad.unpack_dual(tensor).tangent is not None:
        remedy = "pass its primal: torch.autograd.forward_ad.unpack_dual(tensor).primal"
        got = "a tensor with a tangent (forward-mode differentiation)"
        raise RuntimeError(refusal("gemm", argument, got, "inference", remedy))


def _is_differentiating_forward() -> bool:
    """Inside ``forward_ad.dual_level()``, torch.func.jvp or jacfwd. torch has no public question of
    it that is cheap; without an answer every call would cost a microsecond more."""
    return getattr(forward_ad, "_current_level", -1) >= 0


def _check_like(argument: str, tensor: Tensor, weight: PaddedWeight) -> None:
    check_strided("gemm", argument, tensor)
    if tensor.dtype != weight.dtype:
        remedy = f"{argument}.to({weight.dtype})"
        if tensor.dtype in (torch.float16, torch.bfloat16):
            remedy += f", or repack with dtype={tensor.dtype}"
        raise TypeError(refusal("gemm", argument, tensor.dtype, weight.dtype, remedy))
    if tensor.device != weight.device:
        remedy = f"weight.to({str(tensor.device)!r}), once, after loading"
        if tensor.is_meta:
            remedy = "pass a tensor that holds data"
        raise ValueError(refusal("gemm", argument, tensor.device, weight.device, remedy))


def _check_out(out: object, shape: tuple[int, ...], a: Tensor, weight: PaddedWeight) -> None:
    if not isinstance(out, Tensor):
        raise TypeError(refusal("gemm", "out", type(out).__name__, "a Tensor or None"))
    _check_like("out", out, weight)
    _check_inference("out", out)
    if tuple(out.shape) != shape:
        raise ValueError(refusal("gemm", "out", f"shape {tuple(out.shape)}", str(shape)))
    if torch.compiler.is_compiling():
        return
    rows_collapse = out.dim() <= 2 or out.is_contiguous()
    if out.numel() and not (rows_collapse and (out.stride(-1) == 1 or out.shape[-1] == 1)):
        remedy = "allocate it with torch.empty, or leave it out"
        expected = "adjacent elements in a row; of more than two dimensions, a contiguous tensor"
        raise ValueError(refusal("gemm", "out", f"strides {out.stride()}", expected, remedy))
    if out.is_inference() and not torch.is_inference_mode_enabled():
        expected = "a tensor that may be written outside torch.inference_mode()"
        raise RuntimeError(refusal("gemm", "out", "an inference tensor", expected, "clone it"))
    rows = out.view(-1, weight.n)
    if rows.shape[0] > 1 and rows.stride(0) < weight.n:
        expected = f"rows at least n = {weight.n} apart"
        remedy = "allocate it with torch.empty, or leave it out"
        raise ValueError(refusal("gemm", "out", f"strides {out.stride()}", expected, remedy))
    if _overlap(rows, a):
        expected = "memory that a does not use"
        raise ValueError(
            refusal("gemm", "out", "a tensor that overlaps a", expected, "pass another buffer")
        )


def _overlap(out: Tensor, a: Tensor) -> bool:
    """Whether two 2-D tensors with adjacent row elements share memory. Columns of one buffer, row
    for row beside each other, do not."""
    if out.numel() == 0 or a.numel() == 0:
        return False
    first, second = sorted((out, a), key=Tensor.data_ptr)
    size = out.element_size()
    gap = (second.data_ptr() - first.data_ptr()) // size
    extent = (first.shape[0] - 1) * first.stride(0) + first.shape[1]
    if gap >= extent:
        return False
    pitch = first.stride(0)
    if pitch != second.stride(0) or pitch == 0:
        return True
    offset = gap % pitch
    return not (offset >= first.shape[1] and offset + second.shape[1] <= pitch)
