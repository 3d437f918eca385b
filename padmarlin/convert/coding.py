# SPDX-License-Identifier: Apache-2.0
"""How each layer of a checkpoint is stored, by its tensors and the quantization settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from padmarlin.checkpoint.schemes import readable_scheme
from padmarlin.checkpoint.settings import read_settings
from padmarlin.convert.layer import FLOATS, Coding
from padmarlin.convert.refuse import refuse
from padmarlin.convert.stored import StoredTensor
from padmarlin.jsonfile import JsonObject


class Codings:
    """Answers for one folder; its settings are read once, when the first layer needs them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._settings: JsonObject | None = None

    def of(self, module: str, tensors: Mapping[str, StoredTensor]) -> Coding:
        """The coding of a layer that has those tensors."""
        if "qweight" in tensors or "weight_packed" in tensors:
            scheme = readable_scheme(self._read_settings(), module)
            codes = "weight_packed" if scheme.method == "compressed-tensors" else "qweight"
            if codes not in tensors:
                remedy = "check that the settings belong to these files"
                got = ", ".join(tensors)
                refuse(f"layer {module!r}", got, f"{codes}, as {scheme.method} has", remedy)
            return Coding(scheme.method, scheme.bits, scheme.group_size, scheme.zeros_minus_one)
        if "weight" in tensors and tensors["weight"].dtype in FLOATS:
            return Coding("plain")
        stored = ", ".join(f"{suffix} {tensor.dtype}" for suffix, tensor in tensors.items())
        remedy = "padmarlin converts GPTQ, AWQ, compressed-tensors, fp16, bf16 and fp32"
        refuse(f"layer {module!r}", stored or "no tensors", "a format that it knows", remedy)

    def _read_settings(self) -> JsonObject:
        if self._settings is None:
            self._settings = read_settings("convert", self._folder)
        return self._settings
