# SPDX-License-Identifier: Apache-2.0
"""vLLM's AWQ configuration, with those layers that padmarlin takes."""

from __future__ import annotations

from typing import Any

from torch.nn import Module
from vllm.model_executor.layers.fused_moe import RoutedExperts
from vllm.model_executor.layers.linear import LinearBase
from vllm.model_executor.layers.quantization.auto_awq import AutoAWQConfig
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase
from vllm.model_executor.layers.quantization.utils.quant_utils import is_layer_skipped
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.models.utils import WeightsMapper

from padmarlin.integrations.vllm.journal import Journal
from padmarlin.integrations.vllm.mode import Mode
from padmarlin.integrations.vllm.reading import Coding
from padmarlin.integrations.vllm.taking import Taking
from padmarlin.packing import Packing


class PadmarlinAwqConfig(Taking, AutoAWQConfig):
    """Everything but the choice of the method is vLLM's."""

    @classmethod
    def of(cls, config: dict[str, Any], mode: Mode) -> PadmarlinAwqConfig:
        made = cls.from_config(config)
        made.mode, made.journal = mode, Journal()
        return made

    def get_quant_method(self, layer: Module, prefix: str) -> QuantizeMethodBase | None:
        own = super().get_quant_method
        if isinstance(layer, RoutedExperts):
            if not is_layer_skipped(prefix, self.modules_to_not_convert, match_mode="substring"):
                self.warn_of_experts(layer, prefix, self._coding())
            return own(layer, prefix)
        if not self._is_quantized(layer, prefix):
            return own(layer, prefix)
        return self.choose(layer, prefix, self._coding(), lambda: own(layer, prefix))

    def _is_quantized(self, layer: Module, prefix: str) -> bool:
        dense = isinstance(layer, LinearBase) or (
            isinstance(layer, ParallelLMHead) and self.lm_head_quantized
        )
        return dense and not is_layer_skipped(
            prefix,
            self.modules_to_not_convert,
            self.packed_modules_mapping,
            match_mode="substring",
        )

    def _coding(self) -> Coding:
        return Coding(
            Packing.AWQ,
            bits=self.weight_bits,
            group_size=self.group_size,
            sym=self.zero_point is False,
            act_order=False,
        )

    def get_checkpoint_weight_mapper(self) -> WeightsMapper:
        self.report()
        return AutoAWQConfig.get_checkpoint_weight_mapper()
