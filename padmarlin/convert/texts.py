# SPDX-License-Identifier: Apache-2.0
"""The JSON files of a checkpoint that a conversion changes: config.json and the indexes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from padmarlin import jsonfile
from padmarlin.convert.jsontext import replace, value_at
from padmarlin.convert.layer import Edit
from padmarlin.convert.refuse import refuse
from padmarlin.convert.stored import ITEM_BYTES, Checkpoint, read_index


def read_text(path: Path) -> tuple[str, dict[str, Any]]:
    """A JSON object and the text it is from, line ends as they are."""
    return jsonfile.read_text("convert", path)


def changed_sizes(text: str, changes: Iterable[tuple[tuple[str, ...], int, int]]) -> str:
    """config.json with (path, old, new) applied."""
    values = json.loads(text)
    for path, old, new in changes:
        if value_at(values, path) != old:
            where = f"{'.'.join(path)!r} in config.json"
            refuse(where, value_at(values, path), old, "check that the files belong together")
        text = replace(text, path, new)
    return text


def changed_indexes(checkpoint: Checkpoint, edits: Mapping[str, Edit | None]) -> dict[str, str]:
    """Every index whose totals the edits change, or which names a tensor that is left out."""
    texts = {}
    for path in checkpoint.indexes():
        text, values = read_text(path)
        named = [name for name in edits if name in read_index(path)]
        for key, per_item in (("total_size", True), ("total_parameters", False)):
            total = value_at(values, ("metadata", key))
            # Some writers have 64-bit floats there.
            if isinstance(total, (int, float)) and not isinstance(total, bool):
                new = total + sum(
                    _growth(checkpoint, name, edits[name], per_item) for name in named
                )
                if new != total:
                    text = replace(text, ("metadata", key), new)
        dropped = {name for name in named if edits[name] is None}
        if dropped:
            values = json.loads(text)
            weight_map = values["weight_map"]
            values["weight_map"] = {n: f for n, f in weight_map.items() if n not in dropped}
            text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        if text != read_text(path)[0]:
            texts[path.name] = text
    return texts


def _growth(checkpoint: Checkpoint, name: str, edit: Edit | None, in_bytes: bool) -> int:
    tensor = checkpoint.tensors[name]
    items = (math.prod(edit.shape) if edit else 0) - math.prod(tensor.shape)
    return items * ITEM_BYTES[tensor.dtype] if in_bytes else items
