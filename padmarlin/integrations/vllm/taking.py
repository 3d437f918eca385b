# SPDX-License-Identifier: Apache-2.0
"""What the configurations of all three formats share: whose method a layer gets."""

from __future__ import annotations

from collections.abc import Callable

from torch.nn import Module
from vllm.distributed import get_tensor_model_parallel_rank, get_tensor_model_parallel_world_size
from vllm.model_executor.layers.fused_moe import RoutedExperts
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase

from padmarlin.integrations.vllm.decide import Decision, decide, why_experts_fail
from padmarlin.integrations.vllm.journal import Journal
from padmarlin.integrations.vllm.layers import (
    cut_of,
    expert_cuts,
    one_line,
    refusal_of,
    why_vocabulary_fails,
)
from padmarlin.integrations.vllm.log import logger
from padmarlin.integrations.vllm.method import PadmarlinLinearMethod
from padmarlin.integrations.vllm.mode import Mode
from padmarlin.integrations.vllm.reading import Coding


class Taking:
    """Mixed into subclasses of vLLM's own configurations, so that whatever is not taken is
    vLLM's in every respect: its methods, its attributes, its isinstance checks."""

    mode: Mode
    journal: Journal

    def choose(
        self,
        layer: Module,
        prefix: str,
        coding: Coding,
        own: Callable[[], QuantizeMethodBase | None],
        *,
        reads_g_idx: bool = False,
    ) -> QuantizeMethodBase | None:
        """padmarlin's method for a quantized dense layer, or vLLM's: what `own` gives."""
        decision = decide(cut_of(layer, coding), self.mode)
        if not decision.take:
            method, reason = _asked(layer, coding, own)
            if reason is None:
                self.journal.leave(prefix)
                return method
            decision = Decision(True, reason)
        self.journal.take(prefix, decision.reason)
        return PadmarlinLinearMethod(coding, prefix, reads_g_idx=reads_g_idx)

    def warn_of_experts(self, layer: RoutedExperts, prefix: str, coding: Coding) -> None:
        """Experts stay vLLM's. Whatever is known to go wrong with them is said, by name."""
        for part, cut in zip(("gate, up", "down"), expert_cuts(layer, coding), strict=True):
            reason = why_experts_fail(cut)
            if reason is not None and get_tensor_model_parallel_rank() == 0:
                logger.warning(
                    "padmarlin: %s (%s) is left to vLLM, padmarlin has no kernel for experts: %s",
                    prefix,
                    part,
                    reason,
                )

    def report(self) -> None:
        """Once all layers exist: says what was taken."""
        self.journal.report(
            get_tensor_model_parallel_rank(), get_tensor_model_parallel_world_size()
        )


def _asked(
    layer: Module, coding: Coding, own: Callable[[], QuantizeMethodBase | None]
) -> tuple[QuantizeMethodBase | None, str | None]:
    """vLLM's method for a layer, or why it has none that works."""
    reason = why_vocabulary_fails(layer, coding)
    if reason is not None:
        return None, reason
    try:
        method = own()
    except Exception as error:
        return None, f"vLLM refuses it: {one_line(error)}"
    refused = None if method is None else refusal_of(method, layer)
    return method, None if refused is None else f"vLLM refuses it: {refused}"
