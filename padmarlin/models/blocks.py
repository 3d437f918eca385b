# SPDX-License-Identifier: Apache-2.0
"""The blocks that decoders are built of: attention, MLP, experts; each gives its linear layers.

Names are the checkpoint's; the fused layer is called as engines call it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from padmarlin.models.config import Config
from padmarlin.models.layers import EXPERT, LinearLayer, Part

Layers = tuple[int, ...]
Block = Callable[[Config, str, Layers], list[LinearLayer]]
"""(config, name of a layer, which layers) -> the block's linear layers."""

_MAX_EXPERTS = 100_000


def heads(config: Config) -> int:
    return config.size("num_attention_heads", "n_head")


def head_size(config: Config) -> int:
    """Stated, or the hidden size over the heads."""
    if config.has("head_dim") or config.has("kv_channels"):
        return config.size("head_dim", "kv_channels")
    hidden = config.size("hidden_size")
    if hidden % heads(config):
        config.refuse("num_attention_heads", f"a divisor of hidden_size = {hidden}")
    return hidden // heads(config)


def _attention_layers(
    config: Config,
    prefix: str,
    layers: Layers,
    fused: tuple[str, tuple[str, ...]],
    out: str,
    heads_kv: str,
) -> list[LinearLayer]:
    size, query = head_size(config), heads(config)
    kv = config.size(heads_kv, default=query)
    if query % kv:
        config.refuse(heads_kv, f"a divisor of the {query} query heads")
    name, modules = fused
    parts = (
        Part("q", query * size, size),
        Part("k", kv * size, size, replicate=True),
        Part("v", kv * size, size, replicate=True),
    )
    hidden = config.size("hidden_size")
    return [
        LinearLayer(
            f"{prefix}.{name}",
            "qkv",
            hidden,
            parts,
            "n",
            layers=layers,
            modules=tuple(f"{prefix}.{module}" for module in modules),
        ),
        LinearLayer(
            f"{prefix}.{out}",
            "o",
            query * size,
            (Part("o", hidden),),
            "k",
            size,
            modules=(f"{prefix}.{out}",),
            layers=layers,
        ),
    ]


def attention(
    fused: str = "self_attn.qkv_proj",
    modules: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    out: str = "self_attn.o_proj",
) -> Block:
    """Grouped-query attention, q, k and v stored apart."""
    return lambda config, prefix, layers: _attention_layers(
        config, prefix, layers, (fused, modules), out, "num_key_value_heads"
    )


def fused_attention(qkv: str, out: str, heads_kv: str = "num_key_value_heads") -> Block:
    """Grouped-query attention, q, k and v stored as one tensor."""
    return lambda config, prefix, layers: _attention_layers(
        config, prefix, layers, (qkv, (qkv,)), out, heads_kv
    )


def latent_attention(config: Config, prefix: str, layers: Layers) -> list[LinearLayer]:
    """DeepSeek's MLA: low-rank projections that every rank holds, then heads that are cut."""
    hidden, count = config.size("hidden_size"), heads(config)
    rope = config.size("qk_rope_head_dim")
    query = config.size("qk_nope_head_dim") + rope
    value = config.size("v_head_dim")
    latent = config.size("kv_lora_rank")
    key_value = config.size("qk_nope_head_dim") + value

    def layer(
        name: str,
        role: str,
        k: int,
        parts: tuple[Part, ...],
        axis: str | None,
        unit: int = 1,
        modules: tuple[str, ...] = (),
    ) -> LinearLayer:
        named = tuple(f"{prefix}.self_attn.{module}" for module in modules or (name,))
        return LinearLayer(f"{prefix}.self_attn.{name}", role, k, parts, axis, unit, named, layers)  # type: ignore[arg-type]

    down = Part("kv_a", latent + rope)
    if config.has("q_lora_rank"):
        rank = config.size("q_lora_rank")
        modules = ("q_a_proj", "kv_a_proj_with_mqa")
        first = [
            layer("fused_qkv_a_proj", "qkv_a", hidden, (Part("q_a", rank), down), None, 1, modules),
            layer("q_b_proj", "q_b", rank, (Part("q_b", count * query, query),), "n"),
        ]
    else:
        first = [
            layer("q_proj", "q", hidden, (Part("q", count * query, query),), "n"),
            layer("kv_a_proj_with_mqa", "kv_a", hidden, (down,), None),
        ]
    up = Part("kv_b", count * key_value, key_value)
    return [
        *first,
        layer("kv_b_proj", "kv_b", latent, (up,), "n"),
        layer("o_proj", "o", count * value, (Part("o", hidden),), "k", value),
    ]


class Width(NamedTuple):
    """An intermediate size: `times` what the config's `key` says."""

    size: int
    key: str
    times: int = 1


def _width(config: Config, keys: tuple[str, ...]) -> Width:
    return Width(config.size(*keys), config.first(*keys))


def gated(
    prefix: str,
    role: str,
    hidden: int,
    width: Width,
    names: tuple[tuple[str, ...], str],
    layers: Layers,
    fused: str = "gate_up_proj",
    experts: int = 0,
) -> list[LinearLayer]:
    """gate and up as one layer, and down. names: of the checkpoint's modules for both."""
    inputs, output = names
    size, key, times = width
    gate_up = LinearLayer(
        f"{prefix}.{fused}",
        f"{role}gate_up",
        hidden,
        (Part("gate", size), Part("up", size)),
        "n",
        modules=tuple(f"{prefix}.{name}" for name in inputs),
        layers=layers,
        experts=experts,
        size_key=key,
        size_times=times,
    )
    down = replace(
        gate_up,
        name=f"{prefix}.{output}",
        role=f"{role}down",
        k=size,
        parts=(Part("down", hidden),),
        axis="k",
        modules=(f"{prefix}.{output}",),
    )
    return [gate_up, down]


def mlp(gate: str = "mlp.gate_proj", up: str = "mlp.up_proj", down: str = "mlp.down_proj") -> Block:
    """A gated MLP, gate and up stored apart."""
    fused = f"{gate.rpartition('.')[0]}.gate_up_proj"
    return lambda config, prefix, layers: gated(
        prefix,
        "",
        config.size("hidden_size"),
        _width(config, ("intermediate_size",)),
        ((gate, up), down),
        layers,
        fused,
    )


def fused_mlp(
    gate_up: str = "mlp.gate_up_proj",
    down: str = "mlp.down_proj",
    size: tuple[str, ...] = ("intermediate_size",),
) -> Block:
    """A gated MLP, gate and up stored as one tensor."""
    return lambda config, prefix, layers: gated(
        prefix,
        "",
        config.size("hidden_size"),
        _width(config, size),
        ((gate_up,), down),
        layers,
        gate_up,
    )


@dataclass(frozen=True)
class Experts:
    """Routed experts, the router, and the expert that every token takes. Keys are the config's."""

    block: str
    count: tuple[str, ...]
    size: tuple[str, ...]
    names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
    shared: str = ""
    shared_size: tuple[str, ...] = ()  # of the shared expert
    shared_count: tuple[str, ...] = ()  # or how many routed experts' size it has
    shared_gate: str = ""
    step: tuple[str, ...] = ()  # every how many layers there are experts
    first_dense: tuple[str, ...] = ()  # how many layers at the start have none

    def sparse_layers(self, config: Config, depth: int) -> Layers:
        """The layers that have experts."""
        if config.count(*self.count, default=0) == 0:
            return ()
        step = config.size(*self.step, default=1) if self.step else 1
        first = config.count(*self.first_dense, default=0) if self.first_dense else 0
        dense = config.numbers("mlp_only_layers")
        # Qwen counts layers from 1, DeepSeek from 0; both only ever have a step of 1.
        offset = 1 if "decoder_sparse_step" in self.step else 0
        return tuple(
            layer
            for layer in range(first, depth)
            if (layer + offset) % step == 0 and layer not in dense
        )

    def linear_layers(self, config: Config, prefix: str, layers: Layers) -> list[LinearLayer]:
        hidden = config.size("hidden_size")
        width = _width(config, self.size)
        experts = config.size(*self.count, maximum=_MAX_EXPERTS)
        block = f"{prefix}.{self.block}"
        gate, up, down = self.names
        names = ((gate, up), down)
        found = [_router(f"{block}.gate", "router", hidden, experts, layers)]
        routed = f"{block}.experts.{EXPERT}"
        found += gated(routed, "experts_", hidden, width, names, layers, experts=experts)
        shared = self._shared_width(config, width)
        if shared.size:
            found += gated(f"{block}.{self.shared}", "shared_", hidden, shared, names, layers)
            if self.shared_gate:
                gate = f"{block}.{self.shared_gate}"
                found.append(_router(gate, "shared_gate", hidden, 1, layers))
        return found

    def _shared_width(self, config: Config, routed: Width) -> Width:
        if self.shared_size:
            return Width(
                config.count(*self.shared_size, default=0), config.first(*self.shared_size)
            )
        if self.shared_count:
            times = config.count(*self.shared_count, default=0, maximum=1000)
            return Width(times * routed.size, routed.key, times)
        return Width(0, "")


def _router(name: str, role: str, hidden: int, n: int, layers: Layers) -> LinearLayer:
    """Chooses experts: small, on every rank, and kept in full precision."""
    part = (Part("router", n),)
    return LinearLayer(
        name, role, hidden, part, None, modules=(name,), layers=layers, quantized=False
    )
