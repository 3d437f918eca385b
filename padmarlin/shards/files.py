# SPDX-License-Identifier: Apache-2.0
"""Writing safetensors files whose tensors need not be in memory, and atomic small files.

A file that has its name is whole: it is written under another one, flushed to the disk, renamed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

UNFINISHED = ".unfinished"

_NAMES = {
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
}


@dataclass(frozen=True)
class Outgoing:
    """A tensor on its way into a file."""

    name: str
    dtype: str  # in safetensors' words
    shape: tuple[int, ...]
    nbytes: int
    chunks: Callable[[], Iterable[Tensor]]

    @classmethod
    def of(cls, name: str, tensor: Tensor) -> Outgoing:
        tensor = tensor.cpu().contiguous()
        shape = tuple(tensor.shape)
        return cls(name, _NAMES[tensor.dtype], shape, tensor.nbytes, lambda: [tensor])


Bytes = bytes | memoryview


def safetensors(tensors: list[Outgoing]) -> Iterator[Bytes]:
    """The bytes of a file of those tensors, in their order."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        offsets = [offset, offset + tensor.nbytes]
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": offsets,
        }
        offset += tensor.nbytes
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # data begin on a multiple of 8 bytes
    yield len(encoded).to_bytes(8, "little") + encoded
    for tensor in tensors:
        made = 0
        for chunk in tensor.chunks():
            data = chunk.contiguous().flatten().view(torch.uint8).numpy()
            yield data.data
            made += data.nbytes
        assert made == tensor.nbytes, f"{tensor.name}: {made} of {tensor.nbytes} bytes"


def contents(source: Path) -> Iterator[Bytes]:
    with source.open("rb") as stream:
        while chunk := stream.read(1 << 23):
            yield chunk


def write(path: Path, chunks: Iterable[Bytes]) -> None:
    with whole_file(path) as stream:
        for chunk in chunks:
            stream.write(chunk)


class DifferentError(Exception):
    """A file does not hold what it should."""


def compare(path: Path, chunks: Iterable[Bytes]) -> None:
    """Raises DifferentError unless the file holds just that."""
    if not path.is_file():
        raise DifferentError
    with path.open("rb") as stream:
        for chunk in chunks:
            if stream.read(len(chunk)) != chunk:
                raise DifferentError
        if stream.read(1):
            raise DifferentError


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        with unfinished.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    flush_directory(path.parent)


def flush_directory(directory: Path) -> None:
    """After this, names that were given or taken away outlast a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
