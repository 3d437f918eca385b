# SPDX-License-Identifier: Apache-2.0
"""A quantized checkpoint that is read layer by layer: its settings and the place of every tensor
are found once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from padmarlin.checkpoint.awq import awq_shape, load_awq
from padmarlin.checkpoint.compressed_tensors import (
    compressed_tensors_shape,
    load_compressed_tensors,
)
from padmarlin.checkpoint.gptq import gptq_shape, load_gptq
from padmarlin.checkpoint.request import Request
from padmarlin.checkpoint.schemes import readable_method, readable_scheme
from padmarlin.checkpoint.settings import read_settings
from padmarlin.checkpoint.tensors import StoredTensor, TensorFiles
from padmarlin.partition import Shard
from padmarlin.weight import PaddedWeight


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
        self.settings = read_settings("load_weight", directory)
        with ExitStack() as open_files:
            self._files = TensorFiles(directory, open_files)
        self._files.release()

    def __contains__(self, name: str) -> bool:
        """Whether there is a tensor of that full name."""
        return name in self._files

    def layers(self) -> list[str]:
        """The quantized layers, in the order of the files."""
        codes = self._tensors()[0]
        return [
            name.rpartition(".")[0]
            for name in self._files.names()
            if name.rpartition(".")[2] == codes
        ]

    def others(self) -> list[str]:
        """The tensors that belong to no quantized layer's weight, in the order of the files."""
        own = self._tensors()
        layers = set(self.layers())

        def quantized(name: str) -> bool:
            layer, _, suffix = name.rpartition(".")
            return layer in layers and suffix in own

        return [name for name in self._files.names() if not quantized(name)]

    def shape(self, name: str) -> tuple[int, int]:
        """(k, n) of a layer, after every check of its tensors' shapes."""
        with self._naming(name, None):
            request = self._request(name, None, torch.device("cpu"), None)
            return _FORMATS[request.scheme.method].shape(request)

    def load(
        self,
        name: str,
        shard: Shard | None,
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> PaddedWeight:
        """A layer, or the part of it that `shard` says, repacked on `device`."""
        with self._naming(name, shard):
            return read_layer(self._request(name, shard, device, dtype))

    def stored(self, name: str) -> StoredTensor:
        """A tensor by its full name; ``release`` closes its file."""
        return self._files[name]

    def release(self) -> None:
        self._files.release()

    def _tensors(self) -> tuple[str, ...]:
        return _FORMATS[readable_method(self.settings)].tensors

    def _request(
        self, name: str, shard: Shard | None, device: torch.device, dtype: torch.dtype | None
    ) -> Request:
        scheme = readable_scheme(self.settings, name)
        return Request(self._files, name, scheme, shard, device, dtype)

    @contextmanager
    def _naming(self, name: str, shard: Shard | None) -> Iterator[None]:
        """Refusals say of which layer they are; afterwards no file is open."""
        self._files.check_layer(name)
        try:
            yield
        except ValueError as error:
            part = "" if shard is None else f"{shard} of "
            where = f"{part}layer {name!r} in {self.directory}"
            raise ValueError(f"{error} ({where})") from error
        finally:
            self._files.release()


def read_layer(request: Request) -> PaddedWeight:
    """The layer of a request, in whatever format it is."""
    return _FORMATS[request.scheme.method].load(request)
