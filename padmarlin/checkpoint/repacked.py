# SPDX-License-Identifier: Apache-2.0
"""Directories that ``padmarlin repack`` wrote: a layer's part for a rank lies there ready to use.

``padmarlin_repack.json`` names the file of every layer and rank; it is written last, so a
directory without it is not finished. A machine needs only the files of its own ranks.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from padmarlin.checkpoint.refuse import refuse
from padmarlin.checkpoint.tensors import StoredTensor
from padmarlin.errors import INT32_MAX, check_regular_file
from padmarlin.jsonfile import read_object
from padmarlin.layout import FORMAT_VERSION
from padmarlin.partition import Shard
from padmarlin.weight import PaddedWeight

INDEX = "padmarlin_repack.json"
JOURNAL = "padmarlin_repack.journal"
"""What a repack that is not finished has written so far."""

REPACK_VERSION = 1
"""Of the index; what is in the files has its own, padmarlin.FORMAT_VERSION."""

_DOWNLOAD = "repack the checkpoint again: the directory is not complete or damaged"


@dataclass(frozen=True)
class RepackedLayer:
    """Where the parts of a layer are."""

    name: str
    axis: str | None  # None: every rank has all of it
    k: int
    n: int
    files: tuple[str, ...]  # one per rank, or one


@dataclass(frozen=True)
class Repacked:
    """The index of a directory of repacked weights."""

    directory: Path
    tp: int
    dtype: str | None
    layers: dict[str, RepackedLayer]
    others: dict[str, str]  # tensors that are not quantized -> file

    @classmethod
    def read(cls, directory: Path) -> Repacked | None:
        """None if `directory` is an ordinary checkpoint."""
        if not (directory / INDEX).exists():
            if (directory / JOURNAL).exists():
                got = f"{directory}, where a repack was interrupted"
                refuse("checkpoint_dir", got, "a finished one", "run the same repack again")
            return None
        index = read_object("load_weight", directory / INDEX)
        values: Mapping[str, Any] = index.values if index is not None else {}
        for key, expected in (
            ("repack_version", REPACK_VERSION),
            ("format_version", FORMAT_VERSION),
        ):
            if values.get(key) != expected:
                remedy = "repack with this version of padmarlin, or use the one that wrote it"
                refuse(f"{key!r} in {INDEX}", repr(values.get(key)), str(expected), remedy)
        try:
            tp, dtype = values["tp"], values["dtype"]
            if not _is_size(tp) or dtype not in (None, "float16", "bfloat16"):
                raise ValueError(f"tp {tp!r}, dtype {dtype!r}")
            layers = {name: _layer(name, entry, tp) for name, entry in values["layers"].items()}
            others = {name: _file(file) for name, file in values["others"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            refuse(INDEX, f"{type(error).__name__} ({error})", "a complete index", _DOWNLOAD)
        return cls(directory, tp, dtype, layers, others)

    def load(
        self, name: str, shard: Shard | None, device: torch.device, dtype: torch.dtype | None
    ) -> PaddedWeight:
        """The part of a layer that `shard` says."""
        layer = self._find(name)
        file = self.directory / layer.files[self._part(layer, shard)]
        check_regular_file("load_weight", file.name, file)
        try:
            with safe_open(file, framework="pt", device=str(device)) as stored:
                prefix = f"{name}."
                names = [key for key in stored.keys() if key.startswith(prefix)]  # noqa: SIM118
                state = {key: stored.get_tensor(key) for key in names}
        except (OSError, SafetensorError) as error:
            refuse(file.name, error, "a readable safetensors file", _DOWNLOAD)
        try:
            weight = PaddedWeight.from_state_dict(state, prefix)
        except (TypeError, ValueError) as error:
            # A refusal is "PaddedWeight: argument: ..."; this caller never made one.
            rest = str(error).removeprefix("PaddedWeight: ")
            raise ValueError(f"load_weight: {file.name}: {name}: {rest}") from error
        self._check(layer, weight, dtype, file)
        return weight

    @contextmanager
    def stored(self, name: str) -> Iterator[StoredTensor]:
        """One of ``others``; its file is open meanwhile."""
        file = self.directory / self.others[name]
        check_regular_file("load_weight", file.name, file)
        try:
            with safe_open(file, framework="pt") as tensors:
                view = tensors.get_slice(name)
                shape = tuple(view.get_shape())
                yield StoredTensor(name, file, str(view.get_dtype()), shape, view)
        except (OSError, SafetensorError) as error:
            refuse(file.name, error, "a readable safetensors file", _DOWNLOAD)

    def _find(self, name: str) -> RepackedLayer:
        if name in self.layers:
            return self.layers[name]
        close = difflib.get_close_matches(name, self.layers, n=3)
        remedy = f"close matches: {', '.join(close)}" if close else ""
        expected = f"one of the {len(self.layers)} layers in {self.directory}"
        refuse("name", repr(name), expected, remedy)

    def _part(self, layer: RepackedLayer, shard: Shard | None) -> int:
        """Which of the layer's files holds the shard; refuses any other cut than the one made."""
        if shard is None or shard.world_size == 1:
            if len(layer.files) == 1:
                return 0
            wanted = f"Shard({layer.axis!r}, rank, {self.tp})"
            remedy = "pass that shard, or load from the original checkpoint"
            refuse("shard", shard, f"{wanted}: {layer.name} is repacked so", remedy)
        if layer.axis is None:
            remedy = "pass shard=None, or repack the checkpoint for another tp"
            expected = f"None: {layer.name} is stored whole for every rank"
            refuse("shard", shard, expected, remedy)
        if shard.world_size != self.tp or shard.axis != layer.axis:
            expected = f"axis {layer.axis!r} and world_size {self.tp}, as {layer.name} was repacked"
            refuse("shard", shard, expected, f"repack the checkpoint with tp={shard.world_size}")
        return shard.rank

    def _check(
        self, layer: RepackedLayer, weight: PaddedWeight, dtype: torch.dtype | None, file: Path
    ) -> None:
        parts = len(layer.files)
        k = layer.k // parts if layer.axis == "k" else layer.k
        n = layer.n // parts if layer.axis == "n" else layer.n
        if (weight.k, weight.n) != (k, n):
            got = f"{layer.name} of {weight.k} x {weight.n}"
            refuse(file.name, got, f"{k} x {n}, as {INDEX} says", _DOWNLOAD)
        if dtype not in (None, weight.dtype):
            remedy = f"repack the checkpoint with dtype={dtype}"
            refuse("dtype", dtype, f"{weight.dtype}, as it was repacked, or None", remedy)


def _layer(name: str, entry: Any, tp: int) -> RepackedLayer:
    axis, k, n = entry["axis"], entry["k"], entry["n"]
    files = tuple(_file(file) for file in entry["files"])
    if axis not in ("k", "n", None) or not _is_size(k) or not _is_size(n):
        raise ValueError(f"layer {name!r}: axis {axis!r}, k {k!r}, n {n!r}")
    if len(files) != (1 if axis is None else tp):
        raise ValueError(f"layer {name!r}: {len(files)} files for {tp} ranks")
    return RepackedLayer(name, axis, k, n, files)


def _is_size(value: object) -> bool:
    return type(value) is int and 1 <= value <= INT32_MAX


def _file(value: object) -> str:
    """A plain name, so that an index cannot lead out of the directory."""
    if not isinstance(value, str) or not re.fullmatch(r"[^/\\\0]+\.safetensors", value):
        raise ValueError(f"{value!r} is no name of a safetensors file")
    return value
