# SPDX-License-Identifier: Apache-2.0
"""Builds one of vLLM's layers on a rank, loads it as vLLM's loader does, and multiplies by it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

HEAD = 64  # columns per attention head of a qkv layer


@dataclass(frozen=True)
class Case:
    """A layer of a checkpoint, and who is to run it."""

    kind: str  # row, column, replicated, gate_up, qkv, lm_head
    k: int
    n: tuple[int, ...]  # of each fused matrix
    settings: dict[str, Any]  # config.json's quantization_config
    tensors: tuple[dict[str, Tensor], ...]  # by the checkpoint's names, of each fused matrix
    x: Tensor  # (m, k)
    bias: Tensor | None = None
    method: str = "padmarlin-auto"
    name: str = "model.layers.0.mlp.layer_proj"
    fused_on_disk: bool = False
    mapping: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What came of it on a rank."""

    y: Tensor
    method: str  # class of the quantization method
    loaded: dict[str, Tensor]  # the parameters after loading, before they were processed
    parameters: dict[str, tuple[int, ...]]  # shapes, afterwards


def run(case: Case, *, multiply: bool = True) -> Outcome:
    with inside_vllm(case.x.dtype):
        return _run(case, multiply)


@contextmanager
def inside_vllm(dtype: torch.dtype, load_format: str = "auto") -> Iterator[None]:
    """As layers are built and loaded in vLLM."""
    from vllm.config import LoadConfig, VllmConfig, set_current_vllm_config

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    config = VllmConfig(load_config=LoadConfig(load_format=load_format))
    try:
        with set_current_vllm_config(config):
            yield
    finally:
        torch.set_default_dtype(before)


def _run(case: Case, multiply: bool) -> Outcome:
    layer = build(case)
    load(case, layer)
    loaded = {name: value.detach().clone() for name, value in layer.named_parameters()}
    method = layer.quant_method
    if not multiply:
        return Outcome(torch.empty(0), type(method).__name__, loaded, {})
    method.process_weights_after_loading(layer)
    shapes = {name: tuple(value.shape) for name, value in layer.named_parameters()}
    return Outcome(multiplied(case, layer), type(method).__name__, loaded, shapes)


def multiplied(case: Case, layer: Any) -> Tensor:
    """What the rank answers to its part of x."""
    if case.kind == "lm_head":
        return layer.quant_method.apply(layer, case.x, layer.bias)
    x = case.x.chunk(layer.tp_size, -1)[layer.tp_rank] if case.kind == "row" else case.x
    return layer(x)[0]


def build(case: Case) -> Any:
    from vllm.model_executor.layers import linear
    from vllm.model_executor.layers.quantization import get_quantization_config
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    config = get_quantization_config(case.method).from_config(case.settings)
    config.packed_modules_mapping = case.mapping
    common = {
        "bias": case.bias is not None,
        "quant_config": config,
        "prefix": case.name,
    }
    n = sum(case.n)
    if case.kind == "row":
        return linear.RowParallelLinear(case.k, n, **common)
    if case.kind == "column":
        return linear.ColumnParallelLinear(case.k, n, **common)
    if case.kind == "replicated":
        return linear.ReplicatedLinear(case.k, n, **common)
    if case.kind == "gate_up":
        return linear.MergedColumnParallelLinear(case.k, list(case.n), **common)
    if case.kind == "qkv":
        q, k = case.n[0] // HEAD, case.n[1] // HEAD
        return linear.QKVParallelLinear(case.k, HEAD, q, k, **common)
    return ParallelLMHead(n, case.k, **common)


def load(case: Case, layer: Any) -> None:
    """As AutoWeightsLoader does: names that the configuration drops do not come here."""
    shards: tuple[Any, ...] = (None,)
    if not case.fused_on_disk:
        shards = {"gate_up": (0, 1), "qkv": ("q", "k", "v")}.get(case.kind, (None,))
    mapper = layer.quant_config.get_checkpoint_weight_mapper()
    parameters = dict(layer.named_parameters())
    for shard, tensors in zip(shards, case.tensors, strict=True):
        for name, tensor in tensors.items():
            if mapper.map_name(f"{case.name}.{name}") is None:
                continue
            param = parameters[name]
            param.weight_loader(param, tensor, *(() if shard is None else (shard,)))
    if case.bias is not None:
        layer.bias.weight_loader(layer.bias, case.bias) if case.kind not in (
            "gate_up",
            "qkv",
        ) else _load_fused_bias(case, layer)


def _load_fused_bias(case: Case, layer: Any) -> None:
    shards = (0, 1) if case.kind == "gate_up" else ("q", "k", "v")
    for shard, part in zip(shards, case.bias.split(list(case.n)), strict=True):
        layer.bias.weight_loader(layer.bias, part, shard)


def build_and_say(case: Case) -> str:
    """The class of the quantization method that a layer gets."""
    from vllm.config import VllmConfig, set_current_vllm_config

    with set_current_vllm_config(VllmConfig()):
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float16)
        try:
            return type(build(case).quant_method).__name__
        finally:
            torch.set_default_dtype(before)
