# SPDX-License-Identifier: Apache-2.0
"""A quantized checkpoint that is read layer by layer: its settings and the place of every tensor
are found once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from padmarlin.checkpoint.awq import awq_shape, load_awq
from padmarlin.checkpoint.compressed_tensors import (
    compressed_tensors_shape,
    load_compressed_tensors,
)
from padmarlin.checkpoint.gptq import gptq_shape, load_gptq
from padmarlin.checkpoint.request import Request
from padmarlin.checkpoint.settings import Settings, read_settings
from padmarlin.checkpoint.tensors import StoredTensor, TensorFiles
from padmarlin.partition import Shard
from padmarlin.weight import PaddedWeight

_T = TypeVar("_T")


class _Format(NamedTuple):
    load: Callable[[Request], PaddedWeight]
    shape: Callable[[Request], tuple[int, int]]
    tensors: tuple[str, ...]  # of a layer; the first is there wherever a layer is quantized


_GPTQ_TENSORS = ("qweight", "scales", "qzeros", "g_idx")
_FORMATS = {
    "gptq": _Format(load_gptq, gptq_shape, _GPTQ_TENSORS),
    "awq": _Format(load_awq, awq_shape, _GPTQ_TENSORS),
    "compressed-tensors": _Format(
        load_compressed_tensors,
        compressed_tensors_shape,
        (
            *("weight_packed", "weight_scale", "weight_shape"),
            *("weight_zero_point", "weight_g_idx"),
        ),
    ),
}


class CheckpointReader:
    """The layers of a checkpoint directory. Between two calls no file is open, so that memory holds
    no more of them than one layer."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.settings = read_settings(directory)
        with ExitStack() as open_files:
            self._files = TensorFiles(directory, open_files)
        self._files.release()

    def __contains__(self, name: str) -> bool:
        """Whether there is a tensor of that full name."""
        return name in self._files

    def layers(self) -> list[str]:
        """The quantized layers, in the order of the files."""
        codes = _format(self.settings).tensors[0]
        return [
            name.rpartition(".")[0]
            for name in self._files.names()
            if name.rpartition(".")[2] == codes
        ]

    def others(self) -> list[str]:
        """The tensors that belong to no quantized layer's weight, in the order of the files."""
        own = _format(self.settings).tensors
        layers = set(self.layers())

        def quantized(name: str) -> bool:
            layer, _, suffix = name.rpartition(".")
            return layer in layers and suffix in own

        return [name for name in self._files.names() if not quantized(name)]

    def shape(self, name: str) -> tuple[int, int]:
        """(k, n) of a layer, after every check of its tensors' shapes."""
        request = self._request(name, None, torch.device("cpu"), None)
        return self._answer(request, _format(request.settings).shape)

    def load(
        self,
        name: str,
        shard: Shard | None,
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> PaddedWeight:
        request = self._request(name, shard, device, dtype)
        return self._answer(request, _format(request.settings).load)

    def stored(self, name: str) -> StoredTensor:
        """A tensor by its full name; ``release`` closes its file."""
        return self._files[name]

    def release(self) -> None:
        self._files.release()

    def _request(
        self, name: str, shard: Shard | None, device: torch.device, dtype: torch.dtype | None
    ) -> Request:
        self._files.check_layer(name)
        return Request(self._files, name, self.settings.of_layer(name), shard, device, dtype)

    def _answer(self, request: Request, read: Callable[[Request], _T]) -> _T:
        try:
            return read(request)
        except ValueError as error:
            part = "" if request.shard is None else f"{request.shard} of "
            where = f"{part}layer {request.name!r} in {self.directory}"
            raise ValueError(f"{error} ({where})") from error
        finally:
            self._files.release()


def read_layer(request: Request) -> PaddedWeight:
    """The layer of a request, in whatever format its settings say."""
    return _format(request.settings).load(request)


def _format(settings: Settings) -> _Format:
    if settings.method not in _FORMATS:
        key = "quant_method" if settings.values.get("quant_method") else "method"
        settings.refuse(key, " or ".join(map(repr, _FORMATS)), "requantize with one of these")
    return _FORMATS[settings.method]
