# SPDX-License-Identifier: Apache-2.0
"""Names, dtypes and shapes of a checkpoint's tensors: the headers of its safetensors files, and
never their data, so that a model of any size is looked at in an instant."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from padmarlin.models.config import MAX_SIZE, refuse

# The limit of the safetensors library: a header is not longer.
_MAX_HEADER_BYTES = 100_000_000
_REMEDY = "download the file again: it is truncated or damaged"

Shapes = dict[str, tuple[int, ...]]


def tensor_shapes(directory: Path) -> Shapes:
    """The shape of every tensor; empty if there are no safetensors files."""
    shapes: Shapes = {}
    for file in sorted(directory.glob("*.safetensors")):
        header, _ = read_header(file)
        header.pop("__metadata__", None)
        shapes |= {name: _shape(file, name, entry) for name, entry in header.items()}
    return shapes


def read_header(file: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where in the file the data begin.

    Eight bytes of length, little-endian, then a JSON object: name -> dtype, shape, offsets. Raises
    ValueError for anything else; what the entries hold is not checked.
    """
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            available = os.fstat(stream.fileno()).st_size - 8
            if not 2 <= length <= min(available, _MAX_HEADER_BYTES):
                expected = f"a length within its {available} bytes"
                refuse(file.name, f"a header of {length} bytes", expected, _REMEDY)
            header = json.loads(stream.read(length).decode())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        refuse(file.name, f"{type(error).__name__} ({error})", "a safetensors file", _REMEDY)
    if not isinstance(header, dict):
        refuse(file.name, f"a header of type {type(header).__name__}", "an object", _REMEDY)
    return header, 8 + length


def _shape(file: Path, name: str, tensor: Any) -> tuple[int, ...]:
    shape = tensor.get("shape") if isinstance(tensor, dict) else None
    if not isinstance(shape, list) or not all(
        type(size) is int and 0 <= size <= MAX_SIZE * 32 for size in shape
    ):
        refuse(f"tensor {name!r} in {file.name}", f"the shape {shape!r:.60}", "sizes", _REMEDY)
    return tuple(shape)
