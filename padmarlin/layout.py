# SPDX-License-Identifier: Apache-2.0
"""The packed format, version 1, drawn in ``docs/layout.md``: the mirror of ``csrc/core/layout.h``.

Constants, the order of codes inside a word, how scales are stored, and the packing of whole tiles
in vectorised torch (on any device). Everything that knows where a bit lies is in this file.
"""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor

FORMAT_VERSION = 1

TILE = 64
"""A tile is 64 (k) x 64 (n) codes: one contiguous block."""
SLICE = 16
"""A k-slice: 16 rows that share one scale row; the k of one tensor-core instruction."""


class Dequant(IntEnum):
    """How a kernel turns codes into weights (``csrc/core/layout.h`` has the algebra)."""

    TWO_FIELD = 0
    ONE_FIELD = 1
    WIDE = 2


def div_up(value: int, divisor: int) -> int:
    return -(-value // divisor)


def round_up(value: int, multiple: int) -> int:
    return div_up(value, multiple) * multiple


def tile_words(bits: int) -> int:
    """int32 words of a 64 x 64 tile: 512 at 4 bits, 1024 at 8."""
    return TILE * TILE * bits // 32


def symmetric_zero(bits: int) -> int:
    """The zero point of symmetric codes: 8 at 4 bits, 128 at 8."""
    return 1 << (bits - 1)


# ---- the order of codes inside a word

CODE_ORDERS = ("f16_w4", "bf16_w4", "w8")
"""Index in this tuple = the number stored in a state dict."""


def code_order(dtype: torch.dtype, bits: int) -> str:
    """The order of codes inside a word: of ``dtype`` (fp16, bf16) and ``bits`` (4, 8)."""
    if bits == 8:
        return "w8"
    return "f16_w4" if dtype == torch.float16 else "bf16_w4"


def field_base(order: str) -> int:
    """Bits by which each 16-bit half is rotated left: 3 for fp16 at 4 bits, else 0."""
    return 3 if order == "f16_w4" else 0


def _field_bit(base: int, bits: int, column_half: int, k_half: int) -> int:
    return (base + 4 * (1 - column_half) + 8 * k_half) % 16 if bits == 4 else 8 * column_half


def _rotate16(codes: Tensor, bit: int) -> Tensor:
    """int32 codes to the field that starts at ``bit`` of a 16-bit half and wraps around its end."""
    return ((codes << bit) | (codes >> (16 - bit))) & 0xFFFF


# A tile's rows are k = 16 slice + 8 k_half + 2 t + half, its columns n = 16 j + 8 column_half + g;
# its words are ordered [slice][plane][lane = 4 g + t][j] (the plane is k_half at 8 bits).


def pack_tiles(codes: Tensor, bits: int, base: int) -> Tensor:
    """Packs integer codes (padded_k, padded_n), both multiples of 64, into int32 words
    (padded_n / 64, padded_k / 64, 128 * bits)."""
    k_tiles, n_tiles = codes.shape[0] // TILE, codes.shape[1] // TILE
    grid = codes.view(k_tiles, 4, 2, 4, 2, n_tiles, 4, 2, 8)
    planes = bits // 4
    words = torch.zeros(
        (n_tiles, k_tiles, 4, planes, 8, 4, 4), dtype=torch.int32, device=codes.device
    )
    for k_half in range(2):
        plane = words[:, :, :, k_half % planes]
        for half in range(2):
            for column_half in range(2):
                field = grid[:, :, k_half, :, half, :, :, column_half].to(torch.int32)
                field = _rotate16(field, _field_bit(base, bits, column_half, k_half))
                # (k_tile, slice, t, n_tile, j, g) -> (n_tile, k_tile, slice, g, t, j)
                plane |= (field << (16 * half)).permute(3, 0, 1, 5, 2, 4)
    return words.view(n_tiles, k_tiles, tile_words(bits))


def unpack_tiles(words: Tensor, bits: int, base: int) -> Tensor:
    """The inverse of :func:`pack_tiles`: int32 codes (64 * k_tiles, 64 * n_tiles)."""
    n_tiles, k_tiles = words.shape[:2]
    planes = bits // 4
    lanes = words.reshape(n_tiles, k_tiles, 4, planes, 8, 4, 4)
    grid = torch.empty(
        (k_tiles, 4, 2, 4, 2, n_tiles, 4, 2, 8), dtype=torch.int32, device=words.device
    )
    mask = (1 << bits) - 1
    for k_half in range(2):
        plane = lanes[:, :, :, k_half % planes]
        for half in range(2):
            field = (plane >> (16 * half)) & 0xFFFF
            for column_half in range(2):
                bit = _field_bit(base, bits, column_half, k_half)
                codes = _rotate16(field, 16 - bit) & mask
                # (n_tile, k_tile, slice, g, t, j) -> (k_tile, slice, t, n_tile, j, g)
                grid[:, :, k_half, :, half, :, :, column_half] = codes.permute(1, 2, 4, 0, 5, 3)
    return grid.view(k_tiles * TILE, n_tiles * TILE)


# ---- scales and zero points

_UNIT_EXPONENT = {torch.float16: 24, torch.bfloat16: 133}
"""A small 16-bit pattern i is the float i * 2^-unit (``csrc/core/dtype.h``)."""


def _read_bits(dtype: torch.dtype, bits: int, dequant: Dequant) -> tuple[int, int]:
    """The bit at which the kernel sees the codes of columns n and n + 8 (``read_bit`` in C++)."""
    if bits == 8:
        return 0, 0
    upper = field_base(code_order(dtype, bits)) + 4
    return upper, upper if dequant == Dequant.ONE_FIELD else upper - 4


def _scale_exponents(dtype: torch.dtype, bits: int, dequant: Dequant) -> tuple[int, int]:
    """Scales of columns n and n + 8 are stored times 2^e: e for both."""
    if dequant == Dequant.WIDE:
        return 0, 0
    unit = _UNIT_EXPONENT[dtype]
    low, high = _read_bits(dtype, bits, dequant)
    return unit - low, unit - high


def choose_dequant(scales: Tensor, bits: int) -> Dequant:
    """The cheapest kind whose stored scales stay finite. ``scales`` are fp16 or bf16.

    Largest scale   4 bits fp16   4 bits bf16   8 bits fp16   8 bits bf16
    TWO_FIELD       0.0312        0.0311        -             -
    ONE_FIELD       0.499         0.498         0.00390       0.0311
    """
    largest = float(scales.abs().max()) if scales.numel() else 0.0
    kinds = (Dequant.TWO_FIELD, Dequant.ONE_FIELD) if bits == 4 else (Dequant.ONE_FIELD,)
    limit = torch.finfo(scales.dtype).max
    for kind in kinds:
        if largest * 2.0 ** max(_scale_exponents(scales.dtype, bits, kind)) <= limit:
            return kind
    return Dequant.WIDE


def _permute_columns(rows: Tensor) -> Tensor:
    """Column n = 8 i + g of each 64 goes to 8 g + i: lane 4g + t reads its eight as 16 bytes.
    Its own inverse."""
    return rows.view(rows.shape[0], -1, 8, 8).transpose(2, 3).reshape(rows.shape)


def _by_column_half(pair: tuple[int, int], columns: int, device: torch.device) -> Tensor:
    """A row vector (columns,) with pair[0] where n % 16 < 8, else pair[1], in permuted order."""
    return torch.tensor(pair, device=device).repeat(columns // 2)


def pack_scales(scales: Tensor, bits: int, dequant: Dequant) -> Tensor:
    """Scales (rows, padded_n) in column order, fp16 or bf16, to their stored form: permuted, times
    2^e. Exact: a power of two that :func:`choose_dequant` found to stay finite."""
    exponents = _scale_exponents(scales.dtype, bits, dequant)
    stored = _permute_columns(scales).to(torch.float64)
    factor = torch.exp2(_by_column_half(exponents, scales.shape[1], scales.device).double())
    return (stored * factor).to(scales.dtype)


def unpack_scales(stored: Tensor, bits: int, dequant: Dequant) -> Tensor:
    """The inverse of :func:`pack_scales`."""
    exponents = _scale_exponents(stored.dtype, bits, dequant)
    factor = torch.exp2(-_by_column_half(exponents, stored.shape[1], stored.device).double())
    return _permute_columns((stored.to(torch.float64) * factor).to(stored.dtype))


def pack_zeros(zeros: Tensor, dtype: torch.dtype, bits: int, dequant: Dequant) -> Tensor:
    """Integer zero points (rows, padded_n) to int16 (rows, padded_n): permuted, shifted to the bit
    at which the kernel sees the codes they are subtracted from."""
    shifts = _by_column_half(_read_bits(dtype, bits, dequant), zeros.shape[1], zeros.device)
    return (_permute_columns(zeros).to(torch.int32) << shifts.to(torch.int32)).to(torch.int16)


def unpack_zeros(stored: Tensor, dtype: torch.dtype, bits: int, dequant: Dequant) -> Tensor:
    """The inverse of :func:`pack_zeros`: int32."""
    shifts = _by_column_half(_read_bits(dtype, bits, dequant), stored.shape[1], stored.device)
    return _permute_columns(stored.to(torch.int32) >> shifts.to(torch.int32))
