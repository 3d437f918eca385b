# SPDX-License-Identifier: Apache-2.0
"""What vLLM's layer objects say of their sizes, before they have made any weights."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import Module
from vllm.model_executor.layers.fused_moe import RoutedExperts
from vllm.model_executor.layers.linear import ReplicatedLinear, RowParallelLinear
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

from padmarlin.engines import Cut
from padmarlin.integrations.vllm.reading import Coding
from padmarlin.packing import Packing

_METHODS = {
    Packing.GPTQ: "gptq",
    Packing.AWQ: "awq",
    Packing.COMPRESSED_TENSORS: "compressed-tensors",
}


def cut_of(layer: Any, coding: Coding) -> Cut:
    """A rank's part of a dense layer: a linear one or an lm_head."""
    replicated = isinstance(layer, ReplicatedLinear)
    cut_axis = "k" if isinstance(layer, RowParallelLinear) else "n"
    return Cut(
        k=_rows(layer),
        n_parts=tuple(layer.output_partition_sizes),
        full_k=layer.input_size,
        tp=1 if replicated else layer.tp_size,
        axis=None if replicated else cut_axis,
        **_coded(coding),
    )


def expert_cuts(layer: RoutedExperts, coding: Coding) -> tuple[Cut, Cut]:
    """(gate and up, down) of one expert, as a rank has them."""
    moe = layer.moe_config
    hidden, intermediate = moe.hidden_dim, moe.intermediate_size_per_partition_unpadded
    tp = moe.moe_parallel_config.tp_size
    common: dict[str, Any] = {"tp": tp, "experts": True, **_coded(coding)}
    return (
        Cut(k=hidden, n_parts=(intermediate,) * 2, full_k=hidden, axis="n", **common),
        Cut(k=intermediate, n_parts=(hidden,), full_k=intermediate * tp, axis="k", **common),
    )


def why_vocabulary_fails(layer: Any, coding: Coding) -> str | None:
    """vLLM pads vocabularies; its loader then fills rows, which in GPTQ's and AWQ's tensors are not
    the vocabulary's."""
    if not isinstance(layer, ParallelLMHead) or coding.packing == Packing.COMPRESSED_TENSORS:
        return None
    given, padded = layer.org_vocab_size, layer.num_embeddings_padded
    if given == padded:
        return None
    return f"vLLM pads the vocabulary of {given} to {padded} and cannot load such an lm_head"


def refusal_of(method: QuantizeMethodBase, layer: Any) -> str | None:
    """What vLLM's own method says when it is asked to make the layer's weights; None: nothing.

    Asked on the meta device and on another module, so that neither memory nor the layer is touched.
    This is how a platform that has no kernel for a coding is found (8 bits on the CPU).
    """
    scratch = Module()
    for name in ("scheme", "tp_rank", "tp_size", "bias", "prefix"):
        if hasattr(layer, name):
            setattr(scratch, name, getattr(layer, name))
    try:
        with torch.device("meta"):
            method.create_weights(
                layer=scratch,
                input_size_per_partition=_rows(layer),
                output_partition_sizes=list(layer.output_partition_sizes),
                input_size=layer.input_size,
                output_size=layer.output_size,
                params_dtype=getattr(layer, "params_dtype", None) or torch.get_default_dtype(),
                weight_loader=_load_nothing,
            )
    except Exception as error:
        return one_line(error)
    return None


def one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def _rows(layer: Any) -> int:
    """A layer that every rank has whole does not say its input size per rank."""
    return getattr(layer, "input_size_per_partition", layer.input_size)


def _coded(coding: Coding) -> dict[str, Any]:
    return {
        "bits": coding.bits,
        "group_size": coding.group_size,
        "act_order": coding.act_order,
        "sym": coding.sym,
        "method": _METHODS[coding.packing],
    }


def _load_nothing(*arguments: Any, **keywords: Any) -> None:
    del arguments, keywords
