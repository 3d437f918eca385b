# SPDX-License-Identifier: Apache-2.0
"""A safetensors file with some tensors changed, as a stream: the header first, whose sizes are
known beforehand, then the data, one tensor in memory at a time.

The header keeps the source's order, metadata and spelling (compact JSON, blanks up to a multiple
of 8): undoing the changes gives the source's bytes wherever that was the safetensors library's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from padmarlin.convert.layer import Edit
from padmarlin.convert.stored import ITEM_BYTES, StoredFile, StoredTensor

_ALIGNMENT = 8


@dataclass(frozen=True)
class ShardPlan:
    """A file to be written."""

    file: StoredFile
    header: bytes
    data_bytes: int
    edits: Mapping[str, Edit | None]

    @property
    def nbytes(self) -> int:
        return 8 + len(self.header) + self.data_bytes

    def chunks(self) -> Iterator[bytes | memoryview]:
        """The file's bytes."""
        yield len(self.header).to_bytes(8, "little") + self.header
        for tensor in self.file.in_data_order():
            if tensor.name not in self.edits:
                yield from tensor.chunks()
                continue
            edit = self.edits[tensor.name]
            if edit is not None:
                yield _bytes_of(tensor, edit)


def _bytes_of(tensor: StoredTensor, edit: Edit) -> memoryview:
    array = edit.compute()
    assert array.shape == edit.shape, (tensor.name, array.shape, edit.shape)
    assert array.itemsize == ITEM_BYTES[tensor.dtype], (tensor.name, array.dtype)
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def plan_shard(file: StoredFile, edits: Mapping[str, Edit | None]) -> ShardPlan:
    """The file with `edits` applied to those of its tensors that they name."""
    offset = 0
    offsets: dict[str, tuple[int, int]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for tensor in file.in_data_order():
        edit = edits.get(tensor.name)
        if tensor.name in edits and edit is None:
            continue
        shapes[tensor.name] = tensor.shape if edit is None else edit.shape
        nbytes = math.prod(shapes[tensor.name]) * ITEM_BYTES[tensor.dtype]
        offsets[tensor.name] = offset, offset + nbytes
        offset += nbytes
    header: dict[str, object] = {}
    if file.metadata is not None:
        header["__metadata__"] = file.metadata
    for tensor in file.tensors:
        if tensor.name in shapes:
            new = {"shape": list(shapes[tensor.name]), "data_offsets": list(offsets[tensor.name])}
            header[tensor.name] = {**tensor.entry, **new}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return ShardPlan(file, text + b" " * (-len(text) % _ALIGNMENT), offset, edits)
