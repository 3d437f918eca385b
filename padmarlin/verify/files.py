# SPDX-License-Identifier: Apache-2.0
"""The tensors of a checkpoint, read with numpy alone.

Nothing here is shared with padmarlin.checkpoint: what ``verify`` holds padmarlin against must not
make padmarlin's mistakes. The format is eight bytes with the length of a JSON header, the header
(name -> dtype, shape, offsets), and the data.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from padmarlin.errors import check_regular_file, refusal

Array = np.ndarray[Any, Any]

_NUMPY: dict[str, Any] = {
    "BOOL": np.uint8,
    "U8": np.uint8,
    "I8": np.int8,
    "F8_E4M3": np.uint8,
    "F8_E5M2": np.uint8,
    "I16": np.int16,
    "U16": np.uint16,
    "F16": np.float16,
    "BF16": np.uint16,  # numpy has none: its bits
    "I32": np.int32,
    "U32": np.uint32,
    "F32": np.float32,
    "I64": np.int64,
    "U64": np.uint64,
    "F64": np.float64,
}
_LARGEST_HEADER = 100_000_000  # bytes: the limit of safetensors' own readers


def refuse(argument: str, got: object, expected: object, remedy: str = "") -> NoReturn:
    raise ValueError(refusal("verify", argument, got, expected, remedy)) from None


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int  # in the file

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * np.dtype(_NUMPY[self.dtype]).itemsize


class Files:
    """The tensors of a directory by name; their data stay on disk until they are asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.entries: dict[str, Entry] = {}
        index = directory / "model.safetensors.index.json"
        single = directory / "model.safetensors"
        if single.exists():
            self.entries = _header(single)
        elif index.exists():
            self._read_index(index)
        else:
            for file in sorted(directory.glob("*.safetensors")):
                self.entries.update(_header(file))
        if not self.entries:
            refuse("checkpoint", f"no tensors in {directory}", "*.safetensors files")

    def _read_index(self, index: Path) -> None:
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict):
            refuse(index.name, repr(weight_map)[:80], "'weight_map': an object, tensor -> file")
        for file in sorted({str(file) for file in weight_map.values()}):
            if not re.fullmatch(r"[^/\\\0]+\.safetensors", file):
                refuse(index.name, repr(file), "names of files in the same directory")
            here = {name for name, of in weight_map.items() if of == file}
            found = _header(self.directory / file)
            missing = sorted(here - found.keys())
            if missing:
                refuse(file, f"no tensor {missing[0]!r}", f"the tensors that {index.name} names")
            self.entries.update({name: found[name] for name in here})

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def array(self, name: str) -> Array:
        """A tensor's data, mapped; BF16 as the bits of each number."""
        entry = self.entry(name)
        if 0 in entry.shape or not entry.shape:
            raw = np.fromfile(entry.file, np.uint8, entry.nbytes, offset=entry.offset)
            return raw.view(_NUMPY[entry.dtype]).reshape(entry.shape)
        dtype = _NUMPY[entry.dtype]
        return np.memmap(entry.file, dtype, "r", offset=entry.offset, shape=entry.shape)

    def entry(self, name: str) -> Entry:
        if name not in self.entries:
            got = f"no tensor {name!r} in {self.directory}"
            refuse("checkpoint", got, "one", "download the checkpoint again")
        return self.entries[name]


def as_float(array: Array, dtype: str) -> Array:
    """float32, exactly, from F16, BF16 or F32."""
    if dtype == "BF16":
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array.astype(np.float32)


def read_json(path: Path) -> dict[str, Any]:
    check_regular_file("verify", path.name, path)
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        refuse(path.name, error, "a readable JSON file", "download the file again")
    if not isinstance(value, dict):
        refuse(path.name, type(value).__name__, "a JSON object")
    return value


def _header(file: Path) -> dict[str, Entry]:
    check_regular_file("verify", file.name, file)
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > min(size - 8, _LARGEST_HEADER):
                raise ValueError("its header says that it is longer than the file")
            values = json.loads(stream.read(length))
        entries = {
            name: _entry(file, value, 8 + length, size)
            for name, value in values.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        remedy = "download the file again: it is missing, truncated or damaged"
        refuse(file.name, error, "a readable safetensors file", remedy)
    return entries


def _entry(file: Path, value: Any, data: int, size: int) -> Entry:
    first, last = value["data_offsets"]
    entry = Entry(file, value["dtype"], tuple(value["shape"]), data + first)
    if entry.dtype not in _NUMPY:
        raise ValueError(f"dtype {entry.dtype}, which is not known")
    if not all(isinstance(length, int) and length >= 0 for length in entry.shape):
        raise ValueError(f"a shape {entry.shape}")
    if first < 0 or last - first != entry.nbytes or data + last > size:
        raise ValueError(f"data at {first} to {last} for {entry.nbytes} bytes in {size}")
    return entry
