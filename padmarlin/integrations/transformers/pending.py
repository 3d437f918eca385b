# SPDX-License-Identifier: Apache-2.0
"""``PendingLinear``: a layer's tensors as the checkpoint has them, until they are repacked.

Transformers fills it as it fills any module - renamed, sharded over files, on the device it chose -
because its buffers have the names, shapes and dtypes that the files' headers say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from padmarlin import _extension
from padmarlin.checkpoint.bias import fitted_bias
from padmarlin.checkpoint.reader import read_layer
from padmarlin.checkpoint.request import Request
from padmarlin.checkpoint.schemes import readable_scheme
from padmarlin.checkpoint.tensors import StoredTensor
from padmarlin.errors import refusal
from padmarlin.integrations.transformers.stored import Layer
from padmarlin.jsonfile import JsonObject
from padmarlin.nn import QuantLinear

_DTYPES = {
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

_SMALL = ("g_idx", "weight_g_idx", "weight_shape")
"""Tables that the reader looks at number by number, and so on the CPU."""


class PendingLinear(nn.Module):
    """The tensors of a quantized layer that stands for the module `replaced`."""

    def __init__(self, name: str, layer: Layer, replaced: nn.Linear) -> None:
        super().__init__()
        self.name = name
        self.in_features, self.out_features = replaced.in_features, replaced.out_features
        for suffix, (dtype, shape) in layer.items():
            if dtype not in _DTYPES:
                expected = " or ".join(_DTYPES)
                argument = f"tensor '{name}.{suffix}'"
                raise ValueError(refusal("from_pretrained", argument, dtype, expected))
            self.register_buffer(suffix, torch.empty(shape, dtype=_DTYPES[dtype], device="meta"))

    def repacked(self, settings: JsonObject, dtype: torch.dtype) -> QuantLinear:
        """The layer that takes this one's place; `settings` are the checkpoint's."""
        bias = self._buffers.pop("bias", None)
        tensors = {name: t for name, t in self._buffers.items() if t is not None}
        off_device = [name for name, tensor in tensors.items() if tensor.is_meta]
        if off_device:
            got = f"{off_device[0]} of {self.name}, which is offloaded or missing"
            remedy = "choose a device_map of GPUs alone or of the CPU alone"
            self._refuse("device_map", got, "every layer in memory", remedy)
        device = next(iter(tensors.values())).device
        if device.type == "cuda":
            _extension.require_extension("from_pretrained", "device_map")
        files: Any = _InMemory(self.name, tensors)
        scheme = readable_scheme(settings, self.name)
        request = Request(files, self.name, scheme, None, device, dtype)
        weight = read_layer(request)
        if (weight.k, weight.n) != (self.in_features, self.out_features):
            expected = f"{self.in_features} x {self.out_features}, as config.json says"
            remedy = "check that config.json belongs to these files"
            self._refuse(self.name, f"{weight.k} x {weight.n}", expected, remedy)
        if bias is not None:
            bias = fitted_bias(f"{self.name}.bias", bias, weight)
        return QuantLinear(weight, bias).eval()

    def forward(self, x: Tensor) -> Tensor:
        self._refuse(self.name, "a call before loading has ended", "a loaded model")

    def _refuse(self, argument: str, got: object, expected: str, remedy: str = "") -> NoReturn:
        raise ValueError(refusal("from_pretrained", argument, got, expected, remedy))


class _InMemory:
    """Tensors in memory, as a checkpoint's files offer them to the readers of formats."""

    def __init__(self, layer: str, tensors: dict[str, Tensor]) -> None:
        self._tensors = {
            f"{layer}.{suffix}": tensor.cpu() if suffix in _SMALL else tensor
            for suffix, tensor in tensors.items()
        }

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> StoredTensor:
        if name not in self._tensors:
            remedy = "download the checkpoint again: its files are not complete"
            raise ValueError(
                refusal("from_pretrained", "checkpoint", f"no {name!r}", "one", remedy)
            )
        tensor = self._tensors[name]
        file = Path("the checkpoint")
        return StoredTensor(name, file, _NAMES[tensor.dtype], tuple(tensor.shape), tensor)
