# SPDX-License-Identifier: Apache-2.0
"""Whether a layer of B is a layer of A whose rows were sorted by group, as ``padmarlin fold`` does,
and in which order the columns of the layers that make its input must then stand.

Both orders are read from A's group numbers alone: rows by group, those of a group as they stood.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from padmarlin.verify.files import Array
from padmarlin.verify.independent import Checkpoint, Layer


@dataclass(frozen=True)
class Orders:
    """By layer: which row, or column, of A's each one of B's was."""

    rows: dict[str, Array] = field(default_factory=dict)
    columns: dict[str, Array] = field(default_factory=dict)

    def of_tensor(self, name: str) -> Array | None:
        """The order of the first axis of a layer's plain weight or bias: its columns."""
        layer, _, kind = name.rpartition(".")
        return self.columns.get(layer) if kind in ("weight", "bias") else None


def fold_orders(a: Checkpoint, pairs: Mapping[str, tuple[Layer, Layer]]) -> Orders:
    """The orders of every folded layer among `pairs`, and of those beside it that make its input.

    Args:
        a: the original.
        pairs: (A's layer, B's) by name.
    """
    orders = Orders()
    for name, (old, new) in pairs.items():
        order = _order(old.groups, new.groups)
        if order is None:
            continue
        orders.rows[name] = order
        for producer, n in _beside(a, name, pairs):
            if n in (old.k, 2 * old.k):  # two matrices side by side: gate and up
                start = np.arange(0, n, old.k)[:, None]
                orders.columns[producer] = (start + order).reshape(-1)
    return orders


def _order(old: Array, new: Array) -> Array | None:
    """How rows were sorted; None: they were not. Padding stands behind the rows there were."""
    order = np.argsort(old, kind="stable")
    first = new[: len(old)]
    return order if not np.array_equal(old, first) and np.array_equal(old[order], first) else None


def _beside(
    a: Checkpoint, name: str, pairs: Mapping[str, tuple[Layer, Layer]]
) -> Iterable[tuple[str, int]]:
    """(layer, n) of the other layers in a layer's block, quantized or not."""
    block = name.rpartition(".")[0]
    for other, (old, _) in pairs.items():
        if other != name and other.rpartition(".")[0] == block:
            yield other, old.n
    for tensor in a.others:
        layer, _, kind = tensor.rpartition(".")
        shape = a.files.entry(tensor).shape
        if kind == "weight" and len(shape) == 2 and layer.rpartition(".")[0] == block:
            yield layer, shape[0]
