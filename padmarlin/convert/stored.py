# SPDX-License-Identifier: Apache-2.0
"""The safetensors files of a checkpoint, as bytes: every header is checked before anything is
converted, and a tensor is read when it is needed.

A file is eight bytes of length, little-endian, a JSON header, and the data of all tensors without a
gap.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from padmarlin.convert.axis import Array
from padmarlin.convert.refuse import refuse
from padmarlin.models.headers import read_header

ITEM_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
}
_DAMAGED = "download the file again: it is truncated or damaged"
_CHUNK = 2**23


@dataclass(frozen=True)
class StoredTensor:
    """A tensor on disk."""

    name: str
    file: Path
    dtype: str  # in safetensors' words: "I32", "F16"
    shape: tuple[int, ...]
    begin: int  # of its bytes in the file
    entry: Mapping[str, Any]  # its part of the header

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]

    @property
    def label(self) -> str:
        return f"tensor {self.name!r} in {self.file.name}"

    def read(self) -> Array:
        """Its bits, as unsigned integers of its items' size."""
        array = np.empty(self.shape, np.dtype(f"<u{ITEM_BYTES[self.dtype]}"))
        view = array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")
        with self.file.open("rb", buffering=0) as stream:
            stream.seek(self.begin)
            done = 0
            while done < len(view):
                got = stream.readinto(view[done:])
                if not got:
                    refuse(self.label, f"{done} bytes", f"{len(view)}", _DAMAGED)
                done += got
        return array

    def chunks(self) -> Iterator[bytes]:
        """Its bytes, a piece at a time."""
        with self.file.open("rb", buffering=0) as stream:
            stream.seek(self.begin)
            left = self.nbytes
            while left:
                chunk = stream.read(min(left, _CHUNK))
                if not chunk:
                    refuse(self.label, f"{self.nbytes - left} bytes", f"{self.nbytes}", _DAMAGED)
                left -= len(chunk)
                yield chunk


@dataclass(frozen=True)
class StoredFile:
    """A safetensors file: its tensors in the header's order, and what else stands there."""

    path: Path
    tensors: tuple[StoredTensor, ...]
    metadata: Mapping[str, Any] | None

    def in_data_order(self) -> list[StoredTensor]:
        return sorted(self.tensors, key=lambda tensor: tensor.begin)


class Checkpoint:
    """A folder of safetensors files."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            refuse("IN", repr(str(folder)), "an existing folder with safetensors files")
        self.folder = folder
        paths = sorted(path for path in folder.glob("*.safetensors"))
        if not paths:
            refuse("IN", f"no safetensors files in {folder}", "a checkpoint's folder")
        self.files = tuple(_read_file(path) for path in paths)
        self.tensors: dict[str, StoredTensor] = {}
        self.twice: dict[str, tuple[Path, Path]] = {}
        for file in self.files:
            for tensor in file.tensors:
                if tensor.name in self.tensors:
                    self.twice[tensor.name] = (self.tensors[tensor.name].file, file.path)
                self.tensors[tensor.name] = tensor
        self._check_indexes()

    def modules(self) -> dict[str, dict[str, StoredTensor]]:
        """The tensors of every module, by the last part of their names."""
        found: dict[str, dict[str, StoredTensor]] = {}
        for name, tensor in self.tensors.items():
            module, _, suffix = name.rpartition(".")
            found.setdefault(module, {})[suffix] = tensor
        return found

    def indexes(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors.index.json"))

    def _check_indexes(self) -> None:
        for path in self.indexes():
            for name, file in read_index(path).items():
                if not (self.folder / file).is_file():
                    refuse(path.name, f"{name!r} in {file}, which is not there", "every file")
                if name not in self.tensors:
                    refuse(path.name, f"{name!r}, which {file} does not hold", "its tensors")


def read_index(path: Path) -> dict[str, str]:
    """Which file each tensor is in."""
    try:
        values = json.loads(path.read_bytes())
        weight_map = values["weight_map"]
        assert all(isinstance(file, str) and "/" not in file for file in weight_map.values())
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        refuse(path.name, "damaged JSON", "an object 'weight_map': tensor -> file", _DAMAGED)
    except AssertionError:
        refuse(path.name, "paths in 'weight_map'", "names of files in the same folder")
    return dict(weight_map)


def _read_file(path: Path) -> StoredFile:
    header, start = read_header(path)
    size = path.stat().st_size
    metadata = header.pop("__metadata__", None)
    tensors = tuple(_tensor(path, name, entry, start) for name, entry in header.items())
    end = start
    for tensor in sorted(tensors, key=lambda tensor: (tensor.begin, tensor.nbytes)):
        if tensor.begin != end:
            got = f"data from byte {tensor.begin - start}"
            refuse(tensor.label, got, f"byte {end - start}, where the last one ends", _DAMAGED)
        end += tensor.nbytes
    if end != size:
        last = max(tensors, key=lambda tensor: tensor.begin).label if tensors else path.name
        got = f"{size} bytes in the file"
        refuse(f"{last} (the last)", got, f"{end}, as the header says", _DAMAGED)
    return StoredFile(path, tensors, metadata)


def _tensor(path: Path, name: str, entry: Any, start: int) -> StoredTensor:
    label = f"tensor {name!r} in {path.name}"
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        sizes = [*shape, begin, end]
    except (TypeError, KeyError, ValueError):
        refuse(label, f"{entry!r:.60}", "dtype, shape and data_offsets", _DAMAGED)
    if dtype not in ITEM_BYTES:
        refuse(label, f"dtype {dtype!r:.20}", f"one of {', '.join(ITEM_BYTES)}")
    if not all(type(size) is int and 0 <= size < 2**50 for size in sizes):
        refuse(label, f"shape {shape!r:.60} at {begin!r:.20}", "sizes", _DAMAGED)
    tensor = StoredTensor(name, path, dtype, tuple(shape), start + begin, entry)
    if end - begin != tensor.nbytes:
        got = f"{end - begin} bytes"
        refuse(label, got, f"{tensor.nbytes} = {dtype} {tuple(shape)}", _DAMAGED)
    return tensor
