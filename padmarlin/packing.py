# SPDX-License-Identifier: Apache-2.0
"""How checkpoint formats pack codes into int32 words: the Python mirror of ``csrc/core/packing.h``.

Their zero points are packed along N in all of them.
"""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor

from padmarlin.layout import div_up


class Packing(IntEnum):
    """Words are a matrix; P = 32 / bits codes lie in each, lowest bits first."""

    GPTQ = 0
    """(k / P, n): a word holds P rows of one column."""
    AWQ = 1
    """(k, n / P): P columns of one row, in AWQ's order; 4 bits only."""
    COMPRESSED_TENSORS = 2
    """(n, k / P): GPTQ transposed."""


AWQ_NIBBLES = (0, 4, 1, 5, 2, 6, 3, 7)
"""Which nibble of a word, counted from the lowest, holds each of its eight columns."""


def packs(packing: Packing, bits: int) -> bool:
    """Whether codes of so many bits are packed in that way: AWQ's order exists for 4 bits only."""
    return bits == 4 or (bits == 8 and packing != Packing.AWQ)


def held(words: Tensor, packing: Packing, bits: int) -> tuple[int, int]:
    """How many (rows, columns) of codes a matrix of words has room for."""
    per_word = 32 // bits
    first, second = words.shape
    if packing == Packing.GPTQ:
        return first * per_word, second
    if packing == Packing.AWQ:
        return first, second * per_word
    return second * per_word, first


def read_codes(
    words: Tensor, packing: Packing, rows: Tensor, first_column: int, columns: int, bits: int
) -> Tensor:
    """The codes (rows, columns) of some rows, int64, and a range of columns.

    Words may be int64, of which the low 32 bits count; the codes have their dtype.
    """
    per_word = 32 // bits
    if packing == Packing.AWQ:
        first, skipped = divmod(first_column, per_word)
        found = words[:, first : div_up(first_column + columns, per_word)].index_select(0, rows)
        shifts = torch.tensor(AWQ_NIBBLES, dtype=words.dtype, device=words.device) * bits
        found = (found[:, :, None] >> shifts).flatten(1)[:, skipped : skipped + columns]
    else:
        span = slice(first_column, first_column + columns)
        word_rows = rows // per_word
        if packing == Packing.GPTQ:
            found = words[:, span].index_select(0, word_rows)
        else:
            # Transposed before a word is repeated for each of its rows: there is less of it then.
            used, word_rows = torch.unique(word_rows, return_inverse=True)
            transposed = words[span].index_select(1, used).t().contiguous()
            found = transposed.index_select(0, word_rows)
        found >>= (rows % per_word * bits).to(words.dtype)[:, None]
    found &= (1 << bits) - 1
    return found


def read_zeros(
    words: Tensor, packing: Packing, groups: Tensor, start: int, stop: int, bits: int
) -> Tensor:
    """The zero points (groups, columns) of some groups, int64, and the columns [start, stop).

    GPTQ and AWQ hold them as (groups, n / P), compressed-tensors as (n / P, groups).
    """
    if packing == Packing.AWQ:
        return read_codes(words, packing, groups, start, stop - start, bits)
    # A word holds consecutive columns: with columns called rows, GPTQ's zero points are packed as
    # compressed-tensors packs codes, and the other way round.
    columns = torch.arange(start, stop, device=words.device)
    if packing == Packing.GPTQ:
        words, packing = words.index_select(0, groups), Packing.COMPRESSED_TENSORS
    else:
        words, packing = words.index_select(1, groups), Packing.GPTQ
    return read_codes(words, packing, columns, 0, groups.numel(), bits).t()
