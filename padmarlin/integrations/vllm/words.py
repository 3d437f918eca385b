# SPDX-License-Identifier: Apache-2.0
"""Packed words in one form, whatever the checkpoint's: GPTQ's, its first row at a word's start.

A rank's parameters have this form because ranks may begin inside a checkpoint's word, along K or
along N, and because parts that vLLM fuses (q, k, v; gate, up) must lie side by side.
"""

from __future__ import annotations

import torch
from torch import Tensor

from padmarlin.layout import div_up
from padmarlin.packing import Packing, read_codes

Range = tuple[int, int]

_PIECE = 1 << 22  # codes unpacked at once


def pack(codes: Tensor, bits: int, dim: int) -> Tensor:
    """Codes to int32 words along `dim`, lowest bits first; the last word is filled with zeros."""
    per_word = 32 // bits
    codes = codes.movedim(dim, 0)
    words = codes.new_zeros((div_up(codes.shape[0], per_word), *codes.shape[1:]), dtype=torch.int32)
    for position in range(per_word):
        part = codes[position::per_word].to(torch.int32)
        words[: part.shape[0]] |= part << (position * bits)
    return words.movedim(0, dim).contiguous()


def cut_words(words: Tensor, packing: Packing, rows: Range, columns: Range, bits: int) -> Tensor:
    """The codes of some rows and columns as GPTQ packs them, int32 words.

    Codes beyond the last row, in its word, may be anything.
    """
    if packing == Packing.AWQ:
        return _cut_awq(words, rows, columns, bits)
    per_word = 32 // bits
    first, skipped = divmod(rows[0], per_word)
    last = div_up(rows[1], per_word)
    if packing == Packing.COMPRESSED_TENSORS:
        found = words[slice(*columns), first:last].t()
    else:
        found = words[first:last, slice(*columns)]
    return _shifted(found, skipped * bits, div_up(rows[1] - rows[0], per_word))


def _shifted(words: Tensor, shift: int, count: int) -> Tensor:
    """`count` words that begin `shift` bits into the first: each takes its low bits from one word
    and its high bits from the next."""
    if shift == 0:
        return words[:count]
    low = (words[:count] >> shift) & ((1 << (32 - shift)) - 1)  # >> copies the sign bit
    high = words[1 : count + 1] << (32 - shift)
    low[: high.shape[0]] |= high
    return low


def _cut_awq(words: Tensor, rows: Range, columns: Range, bits: int) -> Tensor:
    width, per_word = columns[1] - columns[0], 32 // bits
    step = max(_PIECE // max(width, 1) // per_word, 1) * per_word
    pieces = []
    for start in range(rows[0], rows[1], step):
        numbers = torch.arange(start, min(start + step, rows[1]), device=words.device)
        codes = read_codes(words, Packing.AWQ, numbers, columns[0], width, bits)
        pieces.append(pack(codes, bits, 0))
    return torch.cat(pieces)
