# SPDX-License-Identifier: Apache-2.0
"""What ``from_pretrained`` calls around its loading of a quantized checkpoint: before, to exchange
the linear layers that are quantized in the files; afterwards, to repack them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import torch
from torch import nn
from transformers.quantizers.base import HfQuantizer
from transformers.utils import logging
from transformers.utils.quantization_config import QuantizationConfigMixin, QuantizationMethod

from padmarlin.errors import refusal
from padmarlin.integrations.transformers.pending import PendingLinear
from padmarlin.integrations.transformers.stored import (
    Layer,
    modules_lacking,
    modules_of,
    quantized_layers,
    stored_layers,
)
from padmarlin.jsonfile import JsonObject

METHODS = ("gptq", "awq", "compressed-tensors")

_logger = logging.get_logger(__name__)


class PadmarlinConfig(QuantizationConfigMixin):
    """The ``quantization_config`` of a checkpoint, as it is. Its entries are attributes too."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(copy.deepcopy(values))
        self.__dict__["quant_method"] = QuantizationMethod(values["quant_method"])

    def to_dict(self) -> dict[str, Any]:
        return {**copy.deepcopy(self.__dict__), "quant_method": self.quant_method.value}


class PadmarlinQuantizer(HfQuantizer):
    """Which layers are quantized is what the files say, not the settings: where a layer has codes,
    it becomes a QuantLinear; where it has a plain weight, Transformers loads that."""

    requires_calibration = True  # only checkpoints that are quantized already

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        if dtype in (torch.float16, torch.bfloat16):
            return dtype
        _logger.warning(f"padmarlin multiplies in 16 bits: torch.float16 instead of {dtype}.")
        return torch.float16

    def _process_model_before_weight_loading(
        self,
        model: Any,
        checkpoint_files: list[str] | None = None,
        dtype: torch.dtype | None = None,
        **_: Any,
    ) -> None:
        if getattr(model.config, "distributed_config", None) is not None:
            remedy = "build tensor-parallel layers with padmarlin.nn"
            _refuse("tp_plan", "a distributed model", "one process", remedy)
        if not checkpoint_files:
            got, remedy = "no files", "pass the name or the directory of a checkpoint"
            _refuse("checkpoint", got, "safetensors files", remedy)
        self._dtype = self.update_dtype(dtype or model.config.dtype)
        stored = stored_layers(checkpoint_files)
        layers = quantized_layers(stored)
        _warn_of_rounding(layers, self._dtype)
        linears = {
            name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)
        }
        found, without = modules_of(layers, linears)
        _check_without(without, modules_lacking(stored, without, linears.keys() - found.keys()))
        for module, layer in found.items():
            model.set_submodule(module, PendingLinear(layer, layers[layer], linears[module]))
        _untie(model, found)
        left = len(linears) - len(found)
        _logger.info(f"padmarlin takes {len(found)} linear layers; {left} are not quantized.")

    def _process_model_after_weight_loading(self, model: nn.Module, **_: Any) -> nn.Module:
        values = self.quantization_config.to_dict()
        settings = JsonObject(values, "config.json", "from_pretrained")
        pending = [
            (name, module)
            for name, module in model.named_modules()
            if isinstance(module, PendingLinear)
        ]
        while pending:  # popped: a layer's own tensors go before the next is repacked
            name, module = pending.pop()
            layer = module.repacked(settings, self._dtype)
            model.set_submodule(name, layer)
            _move_hook(module, layer)
        for parameter in model.parameters():
            # Transformers before 5.23 leaves renamed tensors in the dtype that the file has.
            if parameter.dtype in (torch.float16, torch.bfloat16):
                parameter.data = parameter.data.to(self._dtype)
        # Embeddings and norms would make activations require grad, which the kernels refuse.
        model.requires_grad_(False)
        return model

    def is_serializable(self, *_: Any, **__: Any) -> bool:
        remedy = "copy the original checkpoint, or write shards with `padmarlin repack`"
        got, expected = "a model of repacked weights", "one in a checkpoint's format"
        _logger.warning(refusal("save_pretrained", "model", got, expected, remedy))
        return False

    @property
    def is_trainable(self) -> bool:
        return False

    @property
    def is_compileable(self) -> bool:
        return True


def _refuse(argument: str, got: object, expected: str, remedy: str = "") -> NoReturn:
    raise ValueError(refusal("from_pretrained", argument, got, expected, remedy))


def _warn_of_rounding(layers: Mapping[str, Layer], dtype: torch.dtype) -> None:
    """Scales have the model's dtype; bfloat16 keeps 8 bits of float16's 11."""
    rounded = any(
        tensor.dtype == "F16" and suffix in ("scales", "weight_scale")
        for layer in layers.values()
        for suffix, tensor in layer.items()
    )
    if rounded and dtype == torch.bfloat16:
        _logger.warning(
            "padmarlin: float16 scales are rounded to bfloat16, the model's dtype; "
            "pass dtype=torch.float16 to from_pretrained to keep them as they are."
        )


def _check_without(layers: list[str], lacking: list[str]) -> None:
    """Refuses experts, whose weights the model would be without, and files whose matrices are fused
    where the model's are not, or the other way round (GPTQModel's gate and up of Phi-3); warns of
    other layers, as Transformers does of tensors that a model does not have."""
    experts = [name for name in layers if ".experts." in name]
    if experts:
        got = f"a mixture of experts ({experts[0]}, ...)"
        _refuse("checkpoint", got, "a dense model", "padmarlin has no MoE layers yet")
    if lacking:
        got = f"{layers[0]}, ... of no module, and nothing for {min(lacking)}"
        expected = "the matrices of the model, fused as they are in it"
        _refuse("checkpoint", got, expected, "load it with the library that quantized it")
    if layers:
        named = ", ".join(layers[:3]) + (", ..." if len(layers) > 3 else "")
        _logger.warning(f"padmarlin: {len(layers)} layers belong to no module: {named}.")


def _untie(model: Any, modules: Iterable[str]) -> None:
    """A head that is quantized has weights of its own, whatever the settings say."""
    tied = model.all_tied_weights_keys
    for name in [name for name in tied if name.rpartition(".")[0] in modules]:
        del tied[name]
        model.config.get_text_config().tie_word_embeddings = False


def _move_hook(old: nn.Module, new: nn.Module) -> None:
    """Accelerate's hook, which a device_map that names a layer itself puts around its forward."""
    hook = getattr(old, "_hf_hook", None)
    if hook is not None:
        from accelerate.hooks import add_hook_to_module

        add_hook_to_module(new, hook)
