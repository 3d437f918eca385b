# SPDX-License-Identifier: Apache-2.0
"""Random weights for tests: a PaddedWeight and the dense matrix it must mean, made side by side."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import padmarlin
from padmarlin import layout
from padmarlin.layout import TILE, Dequant, round_up
from padmarlin.packing import Packing
from padmarlin.partition import build_row_map

AWQ_COLUMNS = [0, 2, 4, 6, 1, 3, 5, 7]
"""The columns that nibbles 0 to 7 of an AWQ word hold."""


@dataclass(frozen=True)
class RandomWeight:
    packed: padmarlin.PaddedWeight
    dense: Tensor  # (k, n) in the weight's dtype: (q - z) * s rounded once


def pack_rows(codes: Tensor, bits: int) -> Tensor:
    """(k, n) codes to GPTQ words (ceil(k * bits / 32), n)."""
    per_word = 32 // bits
    rows = torch.zeros((round_up(codes.shape[0], per_word), codes.shape[1]), dtype=torch.int64)
    rows[: codes.shape[0]] = codes
    shifts = torch.arange(per_word) * bits
    words = (rows.view(-1, per_word, codes.shape[1]) << shifts[:, None]).sum(1)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def pack_words(codes: Tensor, packing: Packing, bits: int) -> Tensor:
    """(k, n) codes to the words of a checkpoint format."""
    if packing == Packing.GPTQ:
        return pack_rows(codes, bits)
    if packing == Packing.COMPRESSED_TENSORS:
        return pack_rows(codes, bits).t().contiguous()
    filled = torch.zeros((codes.shape[0], round_up(codes.shape[1], 8)), dtype=codes.dtype)
    filled[:, : codes.shape[1]] = codes
    in_order = filled.view(len(codes), -1, 8)[:, :, AWQ_COLUMNS].flatten(1)
    return pack_rows(in_order.t(), bits).t().contiguous()


def random_words(k: int, n: int, packing: Packing, bits: int, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return pack_words(torch.randint(0, 1 << bits, (k, n), generator=generator), packing, bits)


def random_weight(
    k: int,
    n: int,
    *,
    bits: int = 4,
    group_size: int = 128,
    symmetric: bool = True,
    dtype: torch.dtype = torch.float16,
    scale: float = 0.01,
    act_order: bool = False,
    k_start: int = 0,
    integers: bool = False,
    seed: int = 0,
) -> RandomWeight:
    """Codes and zeros uniform over their range, scales in [scale / 2, scale] of either sign;
    with `integers`, scales all equal to `scale` and codes next to the zero point."""
    generator = torch.Generator().manual_seed(seed)
    groups = 1 if group_size == -1 else (k_start + k - 1) // group_size + 1
    codes = torch.randint(0, 1 << bits, (k, n), generator=generator)
    zeros = torch.full((groups, n), 1 << (bits - 1))
    if not symmetric:
        zeros = torch.randint(0, 1 << bits, (groups, n), generator=generator)
    scales = (torch.rand((groups, n), generator=generator) + 1) * scale / 2
    scales *= torch.randint(0, 2, (groups, n), generator=generator) * 2 - 1
    g_idx = torch.zeros(k, dtype=torch.int64)
    if group_size != -1:
        g_idx = (torch.arange(k) + k_start) // group_size
    if act_order:
        g_idx = g_idx[torch.randperm(k, generator=generator)]
    if integers:
        scales = torch.full((groups, n), scale)
        codes = (zeros[g_idx] + codes % 3 - 1).clamp(0, (1 << bits) - 1)
    scales = scales.to(dtype)
    dense = ((codes - zeros[g_idx]).double() * scales[g_idx].double()).float().to(dtype)

    rows = build_row_map(k, group_size, k_start=k_start, g_idx=g_idx if act_order else None)
    padded_n = round_up(n, TILE)

    def padded(table: Tensor, fill: int) -> Tensor:
        out = torch.full((len(rows.groups), padded_n), fill, dtype=table.dtype)
        out[:, :n] = table[rows.groups]
        return out

    kind = layout.choose_dequant(scales, bits)
    if symmetric and kind != Dequant.WIDE:
        pad_codes = stored_zeros = None
    else:
        pad_codes = padded(zeros, 1 << (bits - 1))
        stored_zeros = layout.pack_zeros(pad_codes, dtype, bits, kind)
        pad_codes = pad_codes.to(torch.uint8)
    order = layout.code_order(dtype, bits)
    qweight = torch.ops.padmarlin.repack(
        pack_rows(codes, bits),
        rows.source_rows,
        rows.slice_rows,
        pad_codes,
        Packing.GPTQ,
        0,
        n,
        bits,
        layout.field_base(order),
    )
    weight = padmarlin.PaddedWeight(
        qweight=qweight,
        scales=layout.pack_scales(padded(scales, 0), bits, kind),
        zeros=stored_zeros,
        slice_rows=rows.slice_rows,
        columns=rows.columns,
        k=k,
        n=n,
        bits=bits,
        group_size=group_size,
        front_pad=rows.front_pad,
        dequant=kind,
        code_order=order,
    )
    return RandomWeight(weight, dense)
