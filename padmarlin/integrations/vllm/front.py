# SPDX-License-Identifier: Apache-2.0
"""The quantization methods "padmarlin" and "padmarlin-auto", as vLLM finds them by name.

vLLM asks each method that it knows whether a model is its own. "padmarlin-auto" says so of every
model whose format padmarlin reads: which of its layers vLLM can run is not known before vLLM knows
the tensor-parallel size, and makes the layers. What it answers with is a subclass of the
configuration that vLLM would have used. Only then is that class imported.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

import torch
from torch.nn import Module
from vllm.model_executor.layers.quantization import register_quantization_config
from vllm.model_executor.layers.quantization.base_config import (
    QuantizationConfig,
    QuantizeMethodBase,
)

from padmarlin.errors import refusal
from padmarlin.integrations.vllm.log import logger
from padmarlin.integrations.vllm.mode import Mode, mode_from_environment
from padmarlin.integrations.vllm.platform import why_unfit
from padmarlin.integrations.vllm.settings import ALIASES, method_of

TAKE_ALL = "padmarlin"
AUTO = "padmarlin-auto"


class PadmarlinConfig(QuantizationConfig):
    """`--quantization padmarlin`: takes every layer that it can."""

    name: ClassVar[str] = TAKE_ALL

    @classmethod
    def override_quantization_method(
        cls, hf_quant_cfg: dict[str, Any], user_quant: str | None, hf_config: Any = None
    ) -> str | None:
        if user_quant != cls.name or method_of(hf_quant_cfg) is None:
            return None
        return cls.name

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> QuantizationConfig:
        return _configuration(config, Mode.ALWAYS)

    # What vLLM asks of the class, before there is a configuration.

    @staticmethod
    def get_config_filenames() -> list[str]:
        return ["quantize_config.json", "quant_config.json"]

    def get_name(self) -> str:
        return self.name

    def get_supported_act_dtypes(self) -> list[torch.dtype]:
        return [torch.half, torch.bfloat16]

    @classmethod
    def get_min_capability(cls) -> int:
        return 80

    def get_quant_method(self, layer: Module, prefix: str) -> QuantizeMethodBase | None:
        _refuse(f"a layer ({prefix}) without settings")


class PadmarlinAutoConfig(PadmarlinConfig):
    """Without `--quantization`, or with vLLM's own name of the format: by ``PADMARLIN_VLLM``."""

    name: ClassVar[str] = AUTO

    @classmethod
    def override_quantization_method(
        cls, hf_quant_cfg: dict[str, Any], user_quant: str | None, hf_config: Any = None
    ) -> str | None:
        method = method_of(hf_quant_cfg)
        if method is None or user_quant not in (None, *ALIASES[method]):
            return None
        unfit = why_unfit()
        if unfit is not None:
            logger.warning("padmarlin: leaves the model to vLLM: %s", unfit)
            return None
        # By another name, not only in another way: vLLM's cache of compiled graphs knows the name.
        return TAKE_ALL if mode_from_environment() is Mode.ALWAYS else cls.name

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> QuantizationConfig:
        return _configuration(config, Mode.AUTO)


def register_methods() -> None:
    for config in (PadmarlinConfig, PadmarlinAutoConfig):
        register_quantization_config(config.name)(config)


def _configuration(config: dict[str, Any], mode: Mode) -> QuantizationConfig:
    method = method_of(config)
    if method is None:
        _refuse(str(config.get("quant_method", config)))
    unfit = why_unfit()
    if unfit is not None:
        function, expected = "padmarlin.integrations.vllm", "a CUDA device with padmarlin's kernels"
        raise ValueError(refusal(function, "--quantization padmarlin", unfit, expected))
    if method == "gptq":
        from padmarlin.integrations.vllm.gptq import PadmarlinGptqConfig

        return PadmarlinGptqConfig.of(config, mode)
    if method == "awq":
        from padmarlin.integrations.vllm.awq import PadmarlinAwqConfig

        return PadmarlinAwqConfig.of(config, mode)
    from padmarlin.integrations.vllm.compressed_tensors import PadmarlinCompressedTensorsConfig

    return PadmarlinCompressedTensorsConfig.of(config, mode)


def _refuse(got: str) -> NoReturn:
    expected = (
        "4 or 8 bits in the format of GPTQ (v1, v2), AWQ (gemm) or compressed-tensors "
        "(pack-quantized)"
    )
    remedy = "leave out --quantization padmarlin"
    raise ValueError(refusal("padmarlin.integrations.vllm", "the model", got, expected, remedy))
