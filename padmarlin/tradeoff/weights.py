# SPDX-License-Identifier: Apache-2.0
"""The weights that are rounded: a checkpoint's, read some rows at a time, or random ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from padmarlin.errors import check_regular_file, refusal
from padmarlin.models import LinearLayer
from padmarlin.models.layers import EXPERT, LAYER

SEED = 0
_PIECE = 2**22  # weights in memory at a time: 16 MB in fp32, and a few times that while rounding
_PLAIN = ("F16", "BF16", "F32")
_PACKED = (".qweight", ".weight_packed")
_LARGEST = 2.0**127  # codes times scales stay finite in fp32 up to here

Piece = tuple[Tensor, float]
"""(columns, k) weights in fp32, and how many times as many they stand for."""


def refuse(argument: str, got: object, expected: object, remedy: str = "") -> NoReturn:
    """Raises the ValueError of a checkpoint that cannot be rounded."""
    raise ValueError(refusal("tradeoff", argument, got, expected, remedy)) from None


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
    """The plain weights of a checkpoint folder; its files stay open until it is closed."""

    def __init__(self, folder: Path, rows: int) -> None:
        self._folder = folder
        self._rows = rows
        self._open_files = ExitStack()
        self._files: dict[str, tuple[Path, Any]] = {}
        self.complete = True
        for path in sorted(folder.glob("*.safetensors")):
            check_regular_file("tradeoff", path.name, path)
            try:
                reader = self._open_files.enter_context(safe_open(path, framework="pt"))
                self._files.update((name, (path, reader)) for name in reader.keys())  # noqa: SIM118
            except (OSError, SafetensorError) as error:
                self._open_files.close()
                _refuse_damaged(path, error)

    def __enter__(self) -> CheckpointWeights:
        return self

    def __exit__(self, *_: object) -> None:
        self._open_files.close()

    def pieces(self, layer: LinearLayer) -> Iterator[Piece]:
        """The weights of every matrix that a layer stands for."""
        for module, columns in _modules(layer):
            yield from self._matrix(f"{module}.weight", columns, layer.k)

    def sampled_bytes(self, layer: LinearLayer) -> int:
        """Bytes of `pieces` in fp32."""
        sampled = (min(self._rows or columns, columns) for _, columns in _modules(layer))
        return sum(sampled) * layer.k * 4

    def _matrix(self, name: str, columns: int, k: int) -> Iterator[Piece]:
        path, view = self._view(name, columns, k)
        step = max(_PIECE // k, 1)
        if not self._rows or columns <= self._rows:
            for start in range(0, columns, step):
                yield _checked(name, path, view, [(start, min(start + step, columns))]), 1.0
            return
        self.complete = False
        generator = torch.Generator().manual_seed(SEED)
        # Drawn, not evenly spaced: heads repeat at even distances, and so may what is in them.
        drawn = torch.randperm(columns, generator=generator)[: self._rows].sort().values.tolist()
        for start in range(0, len(drawn), step):
            ranges = [(row, row + 1) for row in drawn[start : start + step]]
            yield _checked(name, path, view, ranges), columns / len(drawn)

    def _view(self, name: str, columns: int, k: int) -> tuple[Path, Any]:
        module = name.removesuffix(".weight")
        if any(module + packed in self._files for packed in _PACKED):
            remedy = "pass the fp16 or bf16 model that it was made from"
            refuse("path", f"{module}, which is quantized already", "plain weights", remedy)
        if name not in self._files:
            refuse("path", f"no tensor {name!r} in {self._folder}", "one", "download it again")
        path, reader = self._files[name]
        try:
            view = reader.get_slice(name)
            dtype, shape = str(view.get_dtype()), tuple(view.get_shape())
        except (OSError, SafetensorError) as error:
            _refuse_damaged(path, error)
        if dtype not in _PLAIN or shape != (columns, k):
            expected = f"{' or '.join(_PLAIN)} ({columns}, {k}), as config.json says"
            refuse(f"tensor {name!r} in {path.name}", f"{dtype} {shape}", expected)
        return path, view


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


def _checked(name: str, path: Path, view: Any, ranges: list[tuple[int, int]]) -> Tensor:
    """Rows of a tensor in fp32."""
    try:
        weights = torch.cat([view[start:stop] for start, stop in ranges]).float()
    except (OSError, SafetensorError) as error:
        _refuse_damaged(path, error)
    if not bool(weights.abs().amax() <= _LARGEST):  # NaN is not
        refuse(f"tensor {name!r} in {path.name}", "NaN or infinity", "finite weights")
    return weights


def _refuse_damaged(path: Path, error: Exception) -> NoReturn:
    remedy = "download the file again: it is truncated or damaged"
    refuse(path.name, error, "a readable safetensors file", remedy)
