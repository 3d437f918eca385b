# SPDX-License-Identifier: Apache-2.0
"""Whether everything but the quantized weights of a padded checkpoint is what it was: the other
tensors, the sizes that belong together, and config.json."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from padmarlin.verify.extension import Axis, halves
from padmarlin.verify.files import Array, read_json
from padmarlin.verify.folding import Orders
from padmarlin.verify.independent import Checkpoint

_BLOCK_BYTES = 1 << 25
_OF_THE_TOOLS = frozenset(
    {"quantization_config", "compression_config", "transformers_version", "torch_dtype", "dtype"}
)


def compare_tensors(
    a: Checkpoint, b: Checkpoint, names: list[str], orders: Orders
) -> Iterator[str]:
    """What is wrong with the tensors of B that belong to no quantized layer."""
    for name in names:
        if name not in a.files or name not in b.files:
            where = "the original" if name not in a.files else "the other checkpoint"
            yield f"tensor {name} is not in {where}"
            continue
        old, new = a.files.entry(name), b.files.entry(name)
        if old.dtype != new.dtype:
            yield f"tensor {name} is {new.dtype}, was {old.dtype}"
            continue
        axes = _axes(name, old.shape, new.shape)
        if axes is None:
            yield f"tensor {name} is {new.shape}, was {old.shape}: that is no padding"
            continue
        before, order = _bits(a.files.array(name)), orders.of_tensor(name)
        if not _extends(
            before if order is None else before[order], _bits(b.files.array(name)), axes
        ):
            reordered = "" if order is None else " in the order of the folded layer"
            grown = " extended by zeros" if old.shape != new.shape else ""
            yield f"tensor {name} is not the original{reordered}{grown}"


def _axes(name: str, old: tuple[int, ...], new: tuple[int, ...]) -> list[Axis] | None:
    """How each axis grew; None where padding cannot have done that."""
    layer, _, kind = name.rpartition(".")
    if len(old) != len(new):
        return None
    if old != new:
        # Norms take the mean over their axis, and a vocabulary is no inner size.
        linear = kind == "weight" and len(old) >= 2 and not layer.endswith(("embed", "lm_head"))
        if "embed" in layer or not (linear or kind == "bias" or not kind):
            return None
    outputs = len(old) - 2 if kind == "weight" and len(old) >= 2 else 0
    axes = [
        Axis(before, after, halves(layer) if place == outputs else 1)
        for place, (before, after) in enumerate(zip(old, new, strict=True))
    ]
    return axes if all(axis.possible for axis in axes) else None


def _bits(array: Array) -> Array:
    """The same data as unsigned integers: a NaN equals itself, and 0 is not -0."""
    return array.view(f"u{array.dtype.itemsize}")


def _extends(old: Array, new: Array, axes: list[Axis]) -> bool:
    if not axes:
        return bool(old == new)
    rest = axes[1:]
    if len(axes) == 1:
        return all(_same(old, new, here, there) for here, there in axes[0].pieces(0, len(new)))
    row_bytes = max(new.nbytes // max(len(new), 1), 1)
    step = max(_BLOCK_BYTES // row_bytes, 1)
    for here, there in axes[0].pieces(0, len(new)):
        for start in range(here.start, here.stop, step):
            rows = new[start : min(start + step, here.stop)]
            if there is None:
                if rows.any():
                    return False
                continue
            first = there.start + start - here.start
            if not _rows_extend(old[first : first + len(rows)], rows, rest):
                return False
    return True


def _rows_extend(old: Array, new: Array, axes: list[Axis]) -> bool:
    """Whether rows extend rows, all axes but the first having grown as `axes` say."""
    expected = np.zeros_like(new)
    grown = [list(axis.pieces(0, axis.new)) for axis in axes]
    if len(grown) == 1:
        for here, there in grown[0]:
            if there is not None:
                expected[:, here] = old[:, there]
        return bool(np.array_equal(expected, new))
    return all(_extends(before, after, axes) for before, after in zip(old, new, strict=True))


def _same(old: Array, new: Array, here: slice, there: slice | None) -> bool:
    if there is None:
        return not new[here].any()
    return bool(np.array_equal(old[there], new[here]))


def plain_layers(
    a: Checkpoint, b: Checkpoint, names: list[str]
) -> Iterator[tuple[str, tuple[Axis, Axis]]]:
    """(layer, how its rows and its columns grew) of each that is not quantized."""
    for name in names:
        layer, _, kind = name.rpartition(".")
        if kind == "weight" and name in a.files and name in b.files:
            old, new = a.files.entry(name).shape, b.files.entry(name).shape
            if len(old) == len(new) == 2:
                yield layer, (Axis(old[1], new[1]), Axis(old[0], new[0], halves(layer)))


def compare_sizes(grown: dict[str, tuple[Axis, Axis]]) -> Iterator[str]:
    """`grown`: (rows, columns) of each layer. What grows in a block's producers must grow in its
    consumer."""
    made: dict[str, set[int]] = defaultdict(set)
    read: dict[str, set[int]] = defaultdict(set)
    for name, (rows, columns) in grown.items():
        block = name.rpartition(".")[0]
        if columns.old != columns.new:
            made[block].add(columns.new // columns.parts)
        if rows.old != rows.new:
            read[block].add(rows.new)
    for block in sorted(made.keys() | read.keys()):
        if made[block] != read[block]:
            outputs, inputs = sorted(made[block]), sorted(read[block])
            yield f"{block}: layers give {outputs or 'what they did'}, and the next read {inputs}"


def compare_configs(a: Checkpoint, b: Checkpoint, sizes: set[tuple[int, int]]) -> Iterator[str]:
    """`sizes`: (old, new) of every axis that grew; nothing else may have changed in config.json."""
    paths = [checkpoint.files.directory / "config.json" for checkpoint in (a, b)]
    if not all(path.exists() for path in paths):
        if paths[0].exists() != paths[1].exists():
            yield "config.json is in one of the checkpoints only"
        return
    before, after = (dict(_flat(read_json(path))) for path in paths)
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old != new and (old, new) not in sizes:
            yield f"config.json: {key} is {new!r}, was {old!r}"


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if key in _OF_THE_TOOLS or "padmarlin" in key:
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, tuple(value) if isinstance(value, list) else value
