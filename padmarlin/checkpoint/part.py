# SPDX-License-Identifier: Apache-2.0
"""Which codes, words and groups of a stored layer a rank needs.

Words hold 32 / bits neighbours along K or along N. A rank's first row or column may stand inside a
word; so whole words around its part are read, and a Cut says where in them the part lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from padmarlin.checkpoint.refuse import refuse
from padmarlin.checkpoint.tensors import Range, StoredTensor
from padmarlin.formats.common import Cut
from padmarlin.layout import div_up
from padmarlin.partition import groups_touched, is_in_order

CODES = ("I32",)
SCALES = ("F16", "BF16", "F32")
GROUPS = ("I32", "I64")


@dataclass(frozen=True)
class Span:
    """A rank's part of one axis, along which words hold `per_word` codes."""

    part: Range
    per_word: int = 1

    @property
    def words(self) -> Range:
        """The words that hold the part."""
        return self.part[0] // self.per_word, div_up(self.part[1], self.per_word)

    @property
    def codes(self) -> Range:
        """What is read: from the first code of those words to the part's last."""
        return self.words[0] * self.per_word, self.part[1]

    @property
    def within(self) -> Range:
        """The part, counted from the first code read."""
        return self.part[0] - self.codes[0], self.part[1] - self.codes[0]


def cut_of(rows: Span, columns: Span) -> Cut:
    """Where in what is read the rank's part lies."""
    first, last = rows.codes
    return Cut(
        k_start=rows.part[0],
        rows=rows.within,
        columns=columns.within,
        whole_tables=False,
        k_given=last - first,
    )


def group_count(k: int, group_size: int) -> int:
    return groups_touched(k, group_size)[1] + 1


def groups_of(rows: Span, group_size: int, k: int, g_idx: Tensor | None = None) -> Range:
    """The groups to read for those rows of k; with act-order a row may be of any group, and the
    tables stay whole."""
    first, stop = rows.codes
    if g_idx is not None and not is_in_order(g_idx.to(torch.int64), group_size, first):
        return 0, group_count(k, group_size)
    first_group, last_group = groups_touched(stop - first, group_size, first)
    return first_group, last_group + 1


def row_groups(
    stored: StoredTensor, rows: Span, k: int, groups: int, unset: int | None = None
) -> Tensor | None:
    """The group of each of those rows, as a g_idx has them; None if all of it is `unset`.

    All of it is read, a thousandth of a weight, so that every rank refuses a damaged one: a rank
    that alone gave up would leave the others waiting for it.
    """
    g_idx = stored.read((0, k))
    if unset is not None and bool((g_idx == unset).all()):
        return None
    wrong = ((g_idx < 0) | (g_idx >= groups)).nonzero()
    if wrong.numel():
        row = int(wrong[0])
        expected = f"0 to {groups - 1}, the groups that there are"
        refuse(f"tensor {stored.name!r}", f"{int(g_idx[row])} at row {row}", expected)
    return g_idx[slice(*rows.codes)]
