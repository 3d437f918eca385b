# SPDX-License-Identifier: Apache-2.0
"""How each layer of a checkpoint is stored, by its tensors and the quantization settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from padmarlin.checkpoint.compressed_scheme import scheme_of
from padmarlin.checkpoint.settings import Settings, read_settings
from padmarlin.convert.layer import FLOATS, Coding
from padmarlin.convert.refuse import refuse
from padmarlin.convert.stored import StoredTensor


class Codings:
    """Answers for one folder; its settings are read once, when the first layer needs them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._settings: Settings | None = None

    def of(self, module: str, tensors: Mapping[str, StoredTensor]) -> Coding:
        """The coding of a layer that has those tensors."""
        if "qweight" in tensors:
            return self._gptq_or_awq(module)
        if "weight_packed" in tensors:
            scheme = scheme_of(self.settings, module)
            return Coding("compressed-tensors", scheme.bits, scheme.group_size)
        if "weight" in tensors and tensors["weight"].dtype in FLOATS:
            return Coding("plain")
        stored = ", ".join(f"{suffix} {tensor.dtype}" for suffix, tensor in tensors.items())
        remedy = "padmarlin converts GPTQ, AWQ, compressed-tensors, fp16, bf16 and fp32"
        refuse(f"layer {module!r}", stored or "no tensors", "a format that it knows", remedy)

    @property
    def settings(self) -> Settings:
        if self._settings is None:
            self._settings = read_settings(self._folder)
        return self._settings

    def _gptq_or_awq(self, module: str) -> Coding:
        settings = self.settings.of_layer(module)
        bits, group_size = settings.bits("bits"), settings.group_size()
        settings.check_pack_dtype()
        if settings.method == "gptq":
            version = settings.text("checkpoint_format", "format", default="gptq")
            if version not in ("gptq", "gptq_v2"):
                settings.refuse("checkpoint_format", "'gptq' or 'gptq_v2'")
            return Coding("gptq", bits, group_size, zeros_minus_one=version == "gptq")
        if settings.method == "awq":
            for key in ("version", "format", "checkpoint_format"):
                if settings.text(key, default="gemm").lower() != "gemm":
                    settings.refuse(key, "'gemm': other versions pack in another order")
            if bits != 4:
                settings.refuse("bits", "4: AWQ defines no other packing")
            return Coding("awq", bits, group_size)
        settings.refuse("quant_method", "'gptq', 'awq' or 'compressed-tensors'")
