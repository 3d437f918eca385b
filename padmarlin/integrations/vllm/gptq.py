# SPDX-License-Identifier: Apache-2.0
"""vLLM's GPTQ configuration, with those layers that padmarlin takes."""

from __future__ import annotations

import re
from copy import deepcopy
from typing import Any, ClassVar

from torch.nn import Module
from vllm.model_executor.layers.fused_moe import RoutedExperts
from vllm.model_executor.layers.quantization.auto_gptq import AutoGPTQConfig
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase
from vllm.model_executor.layers.quantization.utils.gptq_utils import (
    get_dynamic_override,
    get_linear_quant_method,
    override_config,
)
from vllm.model_executor.models.utils import WeightsMapper
from vllm.scalar_type import scalar_types

from padmarlin.errors import refusal
from padmarlin.integrations.vllm.journal import Journal
from padmarlin.integrations.vllm.mode import Mode
from padmarlin.integrations.vllm.reading import Coding
from padmarlin.integrations.vllm.taking import Taking
from padmarlin.packing import Packing

_EXPERT = re.compile(r"\.experts\.\d+\..*\.g_idx$")


class PadmarlinGptqConfig(Taking, AutoGPTQConfig):
    """Everything but the choice of the method is vLLM's: dynamic, lm_head, fused names, ..."""

    TYPE_MAP: ClassVar[dict[tuple[int, bool], Any]] = {
        **AutoGPTQConfig.TYPE_MAP,
        # vLLM refuses these; entered, so that its code for per-layer settings lets them pass.
        (4, False): scalar_types.uint4,
        (8, False): scalar_types.uint8,
    }

    @classmethod
    def of(cls, config: dict[str, Any], mode: Mode) -> PadmarlinGptqConfig:
        # vLLM's constructor refuses act-order; so it is told of it afterwards.
        dynamic = config.get("dynamic") or {}
        in_order = {"desc_act": False, "dynamic": _in_order(dynamic)}
        made = cls.from_config({"sym": True, **config, **in_order})
        made.mode, made.journal = mode, Journal()
        made.desc_act, made.dynamic = bool(config.get("desc_act")), dynamic
        made.full_config = config
        made.checkpoint_format = _checkpoint_format(config)
        return made

    def get_quant_method(self, layer: Module, prefix: str) -> QuantizeMethodBase | None:
        name = self._name_in_rules(prefix)

        def own() -> QuantizeMethodBase | None:
            if name != prefix:
                raise ValueError(f"vLLM applies no dynamic rule of {name} to {prefix}")
            return AutoGPTQConfig.get_quant_method(self._as_vllm_has_it(), layer, prefix)

        if isinstance(layer, RoutedExperts):
            if get_dynamic_override(self, prefix) is not False:
                settings = deepcopy(self)
                override_config(settings, prefix)
                self.warn_of_experts(layer, prefix, settings._coding(layer.moe_config.hidden_dim))
            return own()
        # vLLM's function gives its last argument the settings of this layer.
        settings = get_linear_quant_method(self, layer, name, _settings_themselves)
        if not isinstance(settings, AutoGPTQConfig):
            return settings
        return self.choose(
            layer,
            prefix,
            settings._coding(layer.input_size),
            own,
            reads_g_idx=self._reads_g_idx,
        )

    def _name_in_rules(self, prefix: str) -> str:
        """The name to look up in `dynamic` for a layer. Quantizers write rules for the matrices of
        a checkpoint (gate_proj, up_proj); vLLM looks up what it makes of them (gate_up_proj)."""
        stem, _, last = prefix.rpartition(".")
        names = [f"{stem}.{part}" for part in self.packed_modules_mapping.get(last, [])]
        if not names or get_dynamic_override(self, prefix) is not None:
            return prefix
        wanted = {name: self._ruled(name) for name in names}
        if len(set(wanted.values())) > 1:
            got = ", ".join(f"{name}: {settings}" for name, settings in wanted.items())
            function, argument = "padmarlin.integrations.vllm", f"dynamic rules for {prefix}"
            expected = "the same (bits, group_size, desc_act, sym) for all that vLLM fuses"
            remedy = "quantize them alike"
            raise ValueError(refusal(function, argument, got, expected, remedy))
        return prefix if wanted[names[0]] == self._ruled(prefix) else names[0]

    def _ruled(self, name: str) -> tuple[Any, ...] | str:
        """What decides how a matrix is coded, by the rules for its name."""
        if get_dynamic_override(self, name) is False:
            return "not quantized"
        given = {
            "bits": self.weight_bits,
            "group_size": self.group_size,
            "desc_act": self.desc_act,
            "sym": self.is_sym,
        }
        return tuple(get_dynamic_override(self, name, *setting) for setting in given.items())

    def _coding(self, k: int) -> Coding:
        return Coding(
            Packing.GPTQ,
            bits=self.weight_bits,
            group_size=self.group_size,
            sym=self.is_sym,
            act_order=self.desc_act and self.group_size != -1 and k > self.group_size,
            checkpoint_format=self.checkpoint_format,
        )

    def _as_vllm_has_it(self) -> AutoGPTQConfig:
        """The configuration that vLLM would have without the plugin; refuses what it refuses."""
        own = AutoGPTQConfig.from_config(self.full_config)
        own.modules_in_block_to_quantize = self.modules_in_block_to_quantize
        own.packed_modules_mapping = self.packed_modules_mapping
        return own

    @property
    def _reads_g_idx(self) -> bool:
        """Whether any layer may be in act-order. Then vLLM refuses the model as a whole, and none
        of its linear layers is left to vLLM; if not, g_idx is dropped as vLLM always does."""
        rules = [values for values in self.dynamic.values() if isinstance(values, dict)]
        return any(
            values.get("desc_act", self.desc_act)
            and values.get("group_size", self.group_size) != -1
            for values in ({}, *rules)
        )

    def get_checkpoint_weight_mapper(self) -> WeightsMapper:
        """vLLM's own drops every g_idx."""
        self.report()
        if not self._reads_g_idx:
            return AutoGPTQConfig.get_checkpoint_weight_mapper()
        return WeightsMapper(orig_to_new_regex={_EXPERT: None})


def _settings_themselves(settings: AutoGPTQConfig) -> AutoGPTQConfig:
    return settings


def _in_order(dynamic: dict[str, Any]) -> dict[str, Any]:
    return {
        rule: {key: value for key, value in values.items() if key != "desc_act"}
        if isinstance(values, dict)
        else values
        for rule, values in dynamic.items()
    }


def _checkpoint_format(config: dict[str, Any]) -> str:
    """AutoGPTQ wrote v1 without saying so; newer versions of GPTQModel say it under both names."""
    return config.get("checkpoint_format") or config.get("format") or "gptq"
