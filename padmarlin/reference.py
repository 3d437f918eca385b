# SPDX-License-Identifier: Apache-2.0
"""The operators in plain torch: what CPU tensors get, and the oracle that the kernels are held to.

Every function works on bounded pieces, so that a 72B-size layer never exists unpacked as a whole,
and runs on any device.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from padmarlin.layout import (
    SLICE,
    TILE,
    Dequant,
    code_order,
    field_base,
    pack_tiles,
    round_up,
    symmetric_zero,
    tile_words,
    unpack_scales,
    unpack_tiles,
    unpack_zeros,
)
from padmarlin.packing import Packing, held, read_codes

_PIECE = 1 << 22
"""Codes handled at once: 16 MB of int32, small enough for a cache's neighbourhood."""


def repack(
    words: Tensor,
    source_rows: Tensor,
    slice_rows: Tensor,
    pad_codes: Tensor | None,
    packing: int,
    first_column: int,
    n: int,
    bits: int,
    base: int,
) -> Tensor:
    """A checkpoint's words to tiles; shapes as in the op ``padmarlin::repack``.

    A row whose ``source_rows`` is -1, or lies beyond ``words``, and a column >= n, hold the pad
    code of their scale row and column.
    """
    packing = Packing(packing)
    padded_n = round_up(n, TILE)
    padded_k = source_rows.shape[0]
    held_rows, _ = held(words, packing, bits)
    out = torch.empty(
        (padded_n // TILE, padded_k // TILE, tile_words(bits)),
        dtype=torch.int32,
        device=words.device,
    )
    step = max(_PIECE // padded_n // TILE, 1) * TILE
    for start in range(0, padded_k, step):
        rows = source_rows[start : start + step].to(torch.int64)
        present = (rows >= 0) & (rows < held_rows)
        found = read_codes(words, packing, torch.where(present, rows, 0), first_column, n, bits)
        codes = _pad_codes(pad_codes, slice_rows, start, rows.shape[0], padded_n, bits)
        codes[:, :n] = torch.where(present[:, None], found, codes[:, :n])
        tiles = slice(start // TILE, (start + rows.shape[0]) // TILE)
        out[:, tiles] = pack_tiles(codes, bits, base)
    return out


def _pad_codes(
    pad_codes: Tensor | None, slice_rows: Tensor, start: int, rows: int, padded_n: int, bits: int
) -> Tensor:
    """What padding looks like in rows [start, start + rows): int32 (rows, padded_n)."""
    if pad_codes is None:
        return torch.full(
            (rows, padded_n), symmetric_zero(bits), dtype=torch.int32, device=slice_rows.device
        )
    slices = slice_rows[start // SLICE : (start + rows) // SLICE].to(torch.int64)
    return pad_codes.index_select(0, slices).to(torch.int32).repeat_interleave(SLICE, 0)


def dequantize(
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
) -> Tensor:
    """The logical weight (k, n) in the scales' dtype, rows in their original order: (q - z) * s
    with one rounding."""
    out = torch.empty((k, n), dtype=scales.dtype, device=scales.device)
    pieces = _dequantized_columns(
        qweight, scales, zeros, slice_rows, columns, k, bits, front_pad, dequant
    )
    for first, piece in pieces:
        out[:, first : first + piece.shape[1]] = piece[:, : n - first]
    return out


def _dequantized_columns(
    qweight: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    slice_rows: Tensor,
    columns: Tensor | None,
    k: int,
    bits: int,
    front_pad: int,
    dequant: int,
) -> Iterator[tuple[int, Tensor]]:
    """Yields (first column, dequantized (k, some multiple of 64)) from left to right."""
    kind = Dequant(dequant)
    base = field_base(code_order(scales.dtype, bits))
    plain_scales = unpack_scales(scales, bits, kind)
    plain_zeros = None if zeros is None else unpack_zeros(zeros, scales.dtype, bits, kind)
    rows = slice_rows.to(torch.int64).repeat_interleave(SLICE)
    n_tiles, k_tiles = qweight.shape[:2]
    step = max(_PIECE // (k_tiles * TILE * TILE), 1)
    for first in range(0, n_tiles, step):
        codes = unpack_tiles(qweight[first : first + step], bits, base)
        span = slice(first * TILE, first * TILE + codes.shape[1])
        zero = symmetric_zero(bits) if plain_zeros is None else plain_zeros[:, span][rows]
        # fp32 holds the product exactly: at most 9 bits of difference times 11 bits of scale.
        weight = (codes - zero) * plain_scales[:, span].float()[rows]
        yield first * TILE, _logical_rows(weight.to(scales.dtype), columns, k, front_pad)


def _logical_rows(padded: Tensor, columns: Tensor | None, k: int, front_pad: int) -> Tensor:
    if columns is None:
        return padded[front_pad : front_pad + k]
    present = columns >= 0
    logical = torch.empty((k, padded.shape[1]), dtype=padded.dtype, device=padded.device)
    logical[columns[present].to(torch.int64)] = padded[present]
    return logical


def gemm(
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
    batch_invariant: bool,
) -> Tensor:
    """a (m, k) @ weight + bias -> (m, n): products summed in fp32, one rounding at the end."""
    out = torch.empty((a.shape[0], n), dtype=a.dtype, device=a.device)
    if out.numel() == 0:
        return out
    activations = a.float()
    multiply = _multiply_row_by_row if batch_invariant else torch.matmul
    pieces = _dequantized_columns(
        qweight, scales, zeros, slice_rows, columns, k, bits, front_pad, dequant
    )
    for first, piece in pieces:
        span = slice(first, min(first + piece.shape[1], n))
        total = multiply(activations, piece[:, : span.stop - first].float())
        if bias is not None:
            total += bias[span].float()
        out[:, span] = total.to(a.dtype)
    return out


def _multiply_row_by_row(a: Tensor, b: Tensor) -> Tensor:
    """A BLAS chooses its order of summation from shapes and alignment: one row at a time, in fresh
    memory, leaves it nothing to choose."""
    return torch.cat([row.clone() @ b for row in a.split(1)])
