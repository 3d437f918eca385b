# SPDX-License-Identifier: Apache-2.0
"""How a padded axis extends the original: the original's positions in order, zeros at the end; in
tensors that hold two matrices side by side, at the end of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from padmarlin.verify.files import Array
from padmarlin.verify.independent import Index, Layer

_TWO_MATRICES = frozenset({"gate_up_proj", "gate_up", "w13", "w12"})


def halves(layer: str) -> int:
    """How many matrices a layer holds side by side along N."""
    return 2 if layer.rpartition(".")[2] in _TWO_MATRICES else 1


@dataclass(frozen=True)
class Axis:
    """An axis of `old` positions that has `new` now, in `parts` equal parts."""

    old: int
    new: int
    parts: int = 1

    @property
    def possible(self) -> bool:
        if self.old == self.new:
            return True
        return self.old < self.new and self.old % self.parts == self.new % self.parts == 0

    def pieces(self, start: int, stop: int) -> Iterator[tuple[slice, slice | None]]:
        """The positions [start, stop) as (where counted from start, where in the old; None: new),
        from left to right."""
        parts = self.parts if self.old != self.new else 1
        old, new = self.old // parts, self.new // parts
        for part in range(parts):
            for first, last, origin in (
                (part * new, part * new + old, part * old),
                (part * new + old, (part + 1) * new, None),
            ):
                low, high = max(first, start), min(last, stop)
                if low < high:
                    here = slice(low - start, high - start)
                    there = None
                    if origin is not None:
                        there = slice(origin + low - first, origin + high - first)
                    yield here, there


@dataclass(frozen=True)
class Extended:
    """A layer whose axes may have grown: the original's weights, and zeros; and whose rows or
    columns may stand in another order than the original's."""

    layer: Layer
    rows: Axis
    columns: Axis
    row_order: Array | None = None  # (old rows): the original's row that each one was
    column_order: Array | None = None  # (old columns)

    def block(self, rows: slice, columns: slice) -> Array:
        """Weights in float64; the slices count in the grown layer."""
        values = np.zeros((rows.stop - rows.start, columns.stop - columns.start))
        for row_here, row_there in self.rows.pieces(rows.start, rows.stop):
            for column_here, column_there in self.columns.pieces(columns.start, columns.stop):
                if row_there is not None and column_there is not None:
                    rows_of_layer = _reordered(row_there, self.row_order)
                    columns_of_layer = _reordered(column_there, self.column_order)
                    block = self.layer.block(rows_of_layer, columns_of_layer)
                    values[row_here, column_here] = block
        return values


def _reordered(there: slice, order: Array | None) -> Index:
    return there if order is None else order[there]
