# SPDX-License-Identifier: Apache-2.0
"""The weights that are rounded: a checkpoint's, read some rows at a time, or random ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from padmarlin.convert.refuse import refuse
from padmarlin.convert.stored import ITEM_BYTES, Checkpoint, StoredTensor
from padmarlin.models import LinearLayer
from padmarlin.models.layers import EXPERT, LAYER

SEED = 0
_PIECE = 2**22  # weights in memory at a time: 16 MB in fp32, and a few times that while rounding
_PLAIN = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
_PACKED = (".qweight", ".weight_packed")
_LARGEST = 2.0**127  # codes times scales stay finite in fp32 up to here
_DAMAGED = "download the file again: it is truncated or damaged"

Piece = tuple[Tensor, float]
"""(columns, k) weights in fp32, and how many times as many they stand for."""


def random_pieces(layer: LinearLayer, rows: int) -> Iterator[Piece]:
    """Normal weights for a layer; one matrix stands for all of the layer's. The relative error does
    not depend on their size."""
    generator = torch.Generator().manual_seed(SEED)
    columns = min(rows, layer.n) if rows else layer.n
    step = max(_PIECE // layer.k, 1)
    for start in range(0, columns, step):
        count = min(step, columns - start)
        yield torch.randn(count, layer.k, generator=generator), layer.n * layer.count / columns


class CheckpointWeights:
    """The plain weights of a checkpoint folder. Files are read, not mapped: what is read leaves the
    process's memory at once."""

    def __init__(self, folder: Path, rows: int) -> None:
        checkpoint = Checkpoint(folder)
        for name, (first, second) in checkpoint.twice.items():
            refuse("path", f"{name!r} in both {first.name} and {second.name}", "each tensor once")
        self._folder = folder
        self._tensors = checkpoint.tensors
        self._rows = rows
        self.complete = True

    def pieces(self, layer: LinearLayer) -> Iterator[Piece]:
        """The weights of every matrix that a layer stands for."""
        for module, columns in _modules(layer):
            yield from self._matrix(self._tensor(module, columns, layer.k))

    def sampled_bytes(self, layer: LinearLayer) -> int:
        """Bytes of `pieces` in fp32."""
        sampled = (min(self._rows or columns, columns) for _, columns in _modules(layer))
        return sum(sampled) * layer.k * 4

    def _matrix(self, tensor: StoredTensor) -> Iterator[Piece]:
        columns, k = tensor.shape
        step = max(_PIECE // k, 1)
        if not self._rows or columns <= self._rows:
            for start in range(0, columns, step):
                yield _read(tensor, [(start, min(start + step, columns))]), 1.0
            return
        self.complete = False
        generator = torch.Generator().manual_seed(SEED)
        # Drawn, not evenly spaced: heads repeat at even distances, and so may what is in them.
        drawn = torch.randperm(columns, generator=generator)[: self._rows].sort().values.tolist()
        for start in range(0, len(drawn), step):
            ranges = [(row, row + 1) for row in drawn[start : start + step]]
            yield _read(tensor, ranges), columns / len(drawn)

    def _tensor(self, module: str, columns: int, k: int) -> StoredTensor:
        if any(module + packed in self._tensors for packed in _PACKED):
            remedy = "pass the fp16 or bf16 model that it was made from"
            refuse("path", f"{module}, which is quantized already", "plain weights", remedy)
        name = f"{module}.weight"
        if name not in self._tensors:
            refuse("path", f"no tensor {name!r} in {self._folder}", "one", "download it again")
        tensor = self._tensors[name]
        if tensor.dtype not in _PLAIN or tensor.shape != (columns, k):
            expected = f"{' or '.join(_PLAIN)} ({columns}, {k}), as config.json says"
            refuse(tensor.label, f"{tensor.dtype} {tensor.shape}", expected)
        return tensor


def _modules(layer: LinearLayer) -> Iterator[tuple[str, int]]:
    """The name and the columns of every matrix in the checkpoint that a layer stands for."""
    sizes = [part.n for part in layer.parts]
    if len(layer.modules) != len(sizes):  # q, k and v or gate and up are one tensor there, too
        sizes = [layer.n]
    for number in layer.layers or (0,):
        for expert in range(max(layer.experts, 1)):
            for module, columns in zip(layer.modules, sizes, strict=True):
                name = module.replace(LAYER, str(number)).replace(EXPERT, str(expert))
                yield name, columns


def _read(tensor: StoredTensor, ranges: list[tuple[int, int]]) -> Tensor:
    """Rows of a tensor in fp32."""
    row_bytes = tensor.shape[1] * ITEM_BYTES[tensor.dtype]
    data = np.empty((sum(stop - start for start, stop in ranges), row_bytes), np.uint8)
    left = data.reshape(-1).data
    try:
        with tensor.file.open("rb", buffering=0) as stream:
            for start, stop in ranges:
                stream.seek(tensor.begin + start * row_bytes)
                part, left = left[: (stop - start) * row_bytes], left[(stop - start) * row_bytes :]
                while part:
                    got = stream.readinto(part)
                    if not got:
                        refuse(tensor.label, "the end of the file", f"row {stop - 1}", _DAMAGED)
                    part = part[got:]
    except OSError as error:
        refuse(tensor.label, error, "a file that can be read", _DAMAGED)
    weights = torch.from_numpy(data).view(_PLAIN[tensor.dtype]).float()
    if not bool(weights.abs().amax() <= _LARGEST):  # NaN is not
        refuse(tensor.label, "NaN or infinity", "finite weights")
    return weights
