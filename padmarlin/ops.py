# SPDX-License-Identifier: Apache-2.0
"""The operators ``torch.ops.padmarlin.*``: schemas, fakes and the CPU implementations.

Schemas live here, so that the operators exist without a compiled extension; ``_C.so`` adds the
CUDA implementations of the same operators. Callers want :mod:`padmarlin.functional` and
:mod:`padmarlin.formats`, whose errors speak their language; the checks here only keep every
memory access in bounds.

``gemm`` and ``gemm_out`` take ``a`` (..., k) and give (..., n); on CUDA the rows of each must have
one stride, with adjacent elements.

Shapes, for a weight of k x n codes (``docs/layout.md``):
    qweight     int32 (padded_n / 64, padded_k / 64, 128 * bits)
    scales      fp16 or bf16 (scale_rows, padded_n)
    zeros       int16 (scale_rows, padded_n), None: symmetric
    slice_rows  int32 (padded_k / 16)
    columns     int32 (padded_k), None: row r reads activation r - front_pad

``repack`` makes qweight out of a checkpoint's words:
    words        int32, packed as `packing` says (padmarlin.packing.Packing)
    source_rows  int32 (padded_k): the row of codes that stands at each padded row, -1: padding
    pad_codes    uint8 (scale_rows, padded_n): what padding holds, None: 2^(bits - 1)
    first_column the column of codes that becomes column 0
"""

from __future__ import annotations

import torch
from torch import Tensor

from padmarlin import _extension as _extension  # registers the CUDA implementations, if built
from padmarlin import reference
from padmarlin.errors import refusal
from padmarlin.layout import SLICE, TILE, Dequant, round_up, tile_words
from padmarlin.packing import Packing, held, packs

WEIGHT_SCHEMA = (
    "Tensor qweight, Tensor scales, Tensor? zeros, Tensor slice_rows, Tensor? columns, "
    "Tensor? bias, int k, int n, int bits, int front_pad, int dequant, bool batch_invariant"
)

_library = torch.library.Library("padmarlin", "DEF")
_library.define(f"gemm(Tensor a, {WEIGHT_SCHEMA}) -> Tensor")
_library.define(f"gemm_out(Tensor(a!) out, Tensor a, {WEIGHT_SCHEMA}) -> ()")
_library.define(
    "dequantize(Tensor qweight, Tensor scales, Tensor? zeros, Tensor slice_rows, Tensor? columns, "
    "int k, int n, int bits, int front_pad, int dequant) -> Tensor"
)
_library.define(
    "repack(Tensor words, Tensor source_rows, Tensor slice_rows, Tensor? pad_codes, "
    "int packing, int first_column, int n, int bits, int field_base) -> Tensor"
)


def _expect(condition: bool, argument: str, got: object, expected: str) -> None:
    if not condition:
        op, _, name = argument.partition(".")
        remedy = "build the weight with padmarlin.repack_* or padmarlin.load_weight"
        raise ValueError(refusal(op, name, got, expected, remedy))


def _check_gemm(
    a: Tensor,
    qweight: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    slice_rows: Tensor,
    columns: Tensor | None,
    bias: Tensor | None,
    k: int,
    n: int,
    bits: int,
    front_pad: int,
    dequant: int,
) -> None:
    _expect(a.dim() > 0 and a.shape[-1] == k, "gemm.a", tuple(a.shape), f"(..., {k})")
    _check_weight(
        "gemm", a.dtype, qweight, scales, zeros, slice_rows, columns, k, n, bits, front_pad,
        dequant,
    )  # fmt: skip
    _expect(
        bias is None or (bias.dtype == a.dtype and tuple(bias.shape) == (n,)),
        "gemm.bias",
        None if bias is None else (bias.dtype, tuple(bias.shape)),
        f"{a.dtype} ({n},) or None",
    )


def _check_weight(
    op: str,
    dtype: torch.dtype,
    qweight: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    slice_rows: Tensor,
    columns: Tensor | None,
    k: int,
    n: int,
    bits: int,
    front_pad: int,
    dequant: int,
) -> None:
    _expect(bits in (4, 8), f"{op}.bits", bits, "4 or 8")
    _expect(
        qweight.dtype == torch.int32
        and qweight.dim() == 3
        and qweight.shape[2] == tile_words(bits),
        f"{op}.qweight",
        (qweight.dtype, tuple(qweight.shape)),
        f"int32 (padded_n / 64, padded_k / 64, {tile_words(bits)})",
    )
    padded_n, padded_k = qweight.shape[0] * TILE, qweight.shape[1] * TILE
    _expect(n == 0 or padded_n - TILE < n <= padded_n, f"{op}.n", n, f"to fill {padded_n} columns")
    _expect(
        scales.dtype == dtype and scales.dim() == 2 and scales.shape[1] == padded_n,
        f"{op}.scales",
        (scales.dtype, tuple(scales.shape)),
        f"{dtype} (scale rows, {padded_n})",
    )
    _expect(
        zeros is None or (zeros.dtype == torch.int16 and zeros.shape == scales.shape),
        f"{op}.zeros",
        None if zeros is None else (zeros.dtype, tuple(zeros.shape)),
        f"int16 {tuple(scales.shape)} or None",
    )
    _expect(
        slice_rows.dtype == torch.int32 and tuple(slice_rows.shape) == (padded_k // SLICE,),
        f"{op}.slice_rows",
        (slice_rows.dtype, tuple(slice_rows.shape)),
        f"int32 ({padded_k // SLICE},)",
    )
    _expect(
        columns is None or (columns.dtype == torch.int32 and tuple(columns.shape) == (padded_k,)),
        f"{op}.columns",
        None if columns is None else (columns.dtype, tuple(columns.shape)),
        f"int32 ({padded_k},) or None",
    )
    fits = 0 <= front_pad < TILE and front_pad + k <= padded_k
    _expect(fits, f"{op}.front_pad", front_pad, f"k = {k} rows behind it within {padded_k}")
    _expect(
        dequant in tuple(Dequant)
        and (dequant != Dequant.WIDE or zeros is not None)
        and (dequant != Dequant.TWO_FIELD or bits == 4),
        f"{op}.dequant",
        dequant,
        "0 (4 bits), 1, or 2 with zeros",
    )


def _check_out(out: Tensor, a: Tensor, n: int) -> None:
    shape = (*a.shape[:-1], n)
    if out.dtype != a.dtype or tuple(out.shape) != shape:
        got, expected = (out.dtype, tuple(out.shape)), f"{a.dtype} {shape}"
        raise ValueError(refusal("gemm", "out", got, expected, "allocate it with a.new_empty"))


@torch.library.impl(_library, "gemm", "CPU")
def _gemm_cpu(
    a, qweight, scales, zeros, slice_rows, columns, bias, k, n, bits, front_pad, dequant,
    batch_invariant,
):  # fmt: skip
    weight = (qweight, scales, zeros, slice_rows, columns, bias, k, n, bits, front_pad, dequant)
    _check_gemm(a, *weight)
    rows = a if a.dim() == 2 else a.reshape(-1, k)
    return reference.gemm(rows, *weight, batch_invariant).view(*a.shape[:-1], n)


@torch.library.impl(_library, "gemm_out", "CPU")
def _gemm_out_cpu(out, *arguments):
    result = _gemm_cpu(*arguments)
    _check_out(out, arguments[0], result.shape[-1])
    out.copy_(result)


@torch.library.register_fake("padmarlin::gemm", lib=_library)
def _gemm_fake(
    a, qweight, scales, zeros, slice_rows, columns, bias, k, n, bits, front_pad, dequant,
    batch_invariant,
):  # fmt: skip
    _check_gemm(
        a, qweight, scales, zeros, slice_rows, columns, bias, k, n, bits, front_pad, dequant
    )
    return a.new_empty((*a.shape[:-1], n))


@torch.library.register_fake("padmarlin::gemm_out", lib=_library)
def _gemm_out_fake(out, *arguments):
    result = _gemm_fake(*arguments)
    _check_out(out, arguments[0], result.shape[-1])


def _check_dequantize(
    qweight: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    slice_rows: Tensor,
    columns: Tensor | None,
    k: int,
    n: int,
    bits: int,
    front_pad: int,
    dequant: int,
) -> None:
    _expect(
        scales.dtype in (torch.float16, torch.bfloat16),
        "dequantize.scales",
        scales.dtype,
        "torch.float16 or torch.bfloat16",
    )
    _check_weight(
        "dequantize", scales.dtype, qweight, scales, zeros, slice_rows, columns, k, n, bits,
        front_pad, dequant,
    )  # fmt: skip


@torch.library.impl(_library, "dequantize", "CPU")
def _dequantize_cpu(*weight):
    _check_dequantize(*weight)
    return reference.dequantize(*weight)


@torch.library.register_fake("padmarlin::dequantize", lib=_library)
def _dequantize_fake(
    qweight, scales, zeros, slice_rows, columns, k, n, bits, front_pad, dequant
):  # fmt: skip
    _check_dequantize(qweight, scales, zeros, slice_rows, columns, k, n, bits, front_pad, dequant)
    return scales.new_empty((k, n))


@torch.library.impl(_library, "repack", "CPU")
def _repack_cpu(
    words, source_rows, slice_rows, pad_codes, packing, first_column, n, bits, field_base
):
    _check_repack(words, source_rows, slice_rows, pad_codes, packing, first_column, n, bits)
    return reference.repack(
        words, source_rows, slice_rows, pad_codes, packing, first_column, n, bits, field_base
    )


@torch.library.register_fake("padmarlin::repack", lib=_library)
def _repack_fake(
    words, source_rows, slice_rows, pad_codes, packing, first_column, n, bits, field_base
):
    _check_repack(words, source_rows, slice_rows, pad_codes, packing, first_column, n, bits)
    shape = (round_up(n, TILE) // TILE, source_rows.shape[0] // TILE, tile_words(bits))
    return words.new_empty(shape)


def _check_repack(
    words: Tensor,
    source_rows: Tensor,
    slice_rows: Tensor,
    pad_codes: Tensor | None,
    packing: int,
    first_column: int,
    n: int,
    bits: int,
) -> None:
    _expect(bits in (4, 8), "repack.bits", bits, "4 or 8")
    _expect(
        packing in tuple(Packing) and packs(Packing(packing), bits),
        "repack.packing",
        f"{packing} with {bits} bits",
        "0 (GPTQ), 1 (AWQ, 4 bits only) or 2 (compressed-tensors)",
    )
    _expect(first_column >= 0, "repack.first_column", first_column, "at least 0")
    _expect(
        words.dtype == torch.int32
        and words.dim() == 2
        and words.numel() > 0
        and 1 <= n <= held(words, Packing(packing), bits)[1] - first_column,
        "repack.words",
        (words.dtype, tuple(words.shape)),
        f"int32 words of at least {first_column} + {n} columns, as first_column + n says (n >= 1)",
    )
    padded_k = source_rows.shape[0] if source_rows.dim() == 1 else -1
    _expect(
        source_rows.dtype == torch.int32 and padded_k > 0 and padded_k % TILE == 0,
        "repack.source_rows",
        (source_rows.dtype, tuple(source_rows.shape)),
        "int32 (a multiple of 64,)",
    )
    _expect(
        slice_rows.dtype == torch.int32 and tuple(slice_rows.shape) == (padded_k // SLICE,),
        "repack.slice_rows",
        (slice_rows.dtype, tuple(slice_rows.shape)),
        f"int32 ({padded_k // SLICE},)",
    )
    _expect(
        pad_codes is None
        or (
            pad_codes.dtype == torch.uint8
            and pad_codes.dim() == 2
            and pad_codes.shape[1] == round_up(n, TILE)
        ),
        "repack.pad_codes",
        None if pad_codes is None else (pad_codes.dtype, tuple(pad_codes.shape)),
        f"uint8 (scale rows, {round_up(n, TILE)}) or None",
    )


def _no_autograd(*_):
    raise RuntimeError(
        refusal(
            "gemm",
            "a or bias",
            "a tensor that requires grad",
            "inference",
            "call it under torch.no_grad() or torch.inference_mode()",
        )
    )


torch.library.register_autograd("padmarlin::gemm", _no_autograd, lib=_library)
