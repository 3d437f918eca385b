# SPDX-License-Identifier: Apache-2.0
"""The architectures that are known: which linear layers a decoder has, from its config alone.

A family is a row of FAMILIES: how its attention and its MLP are built, where the layers stand, and
which experts it has. The blocks are in blocks.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from padmarlin.models.blocks import (
    Block,
    Experts,
    attention,
    fused_attention,
    fused_mlp,
    latent_attention,
    mlp,
)
from padmarlin.models.config import MAX_LAYERS, Config
from padmarlin.models.layers import LAYER, LinearLayer, Part


@dataclass(frozen=True)
class Family:
    """How a family of models is built."""

    attention: Block = field(default_factory=attention)
    mlp: Block = field(default_factory=mlp)
    experts: Experts | None = None
    layers: str = f"model.layers.{LAYER}"
    lm_head: str = "lm_head"
    tied: bool = False  # whether the output embedding is the input's if the config is silent
    defaults: dict[str, Any] = field(default_factory=dict)  # for keys that files leave out

    def linear_layers(self, config: Config, tower: str = "") -> tuple[LinearLayer, ...]:
        """Every linear layer of the language model; `tower`: the outer model's, see TOWERS."""
        config = config.with_defaults(self.defaults)
        depth = config.size("num_hidden_layers", "num_layers", "n_layer", maximum=MAX_LAYERS)
        every = tuple(range(depth))
        sparse = self.experts.sparse_layers(config, depth) if self.experts else ()
        dense = tuple(layer for layer in every if layer not in set(sparse))
        prefix = TOWERS.get(tower, self.layers)
        found = list(self.attention(config, prefix, every))
        if dense:
            found += self.mlp(config, prefix, dense)
        if self.experts and sparse:
            found += self.experts.linear_layers(config, prefix, sparse)
        head = self.lm_head
        if prefix.startswith("language_model."):
            head = f"language_model.{head}"
        return (*found, *self._head(config, head))

    def _head(self, config: Config, name: str) -> tuple[LinearLayer, ...]:
        # Tied or not, engines multiply by it; quantizers leave it alone unless told otherwise.
        vocabulary = config.size("vocab_size", "padded_vocab_size", default=1)
        if vocabulary == 1 or config.flag("tie_word_embeddings", self.tied):
            return ()
        part = (Part("lm_head", vocabulary),)
        hidden = config.size("hidden_size")
        return (LinearLayer(name, "lm_head", hidden, part, "n", modules=(name,), quantized=False),)


_DECODER = Family()

_MIXTRAL = Family(
    experts=Experts(
        "block_sparse_moe",
        count=("num_local_experts",),
        size=("intermediate_size",),
        names=("w1", "w3", "w2"),
    )
)

_QWEN_MOE = Experts(
    "mlp",
    count=("num_experts",),
    size=("moe_intermediate_size",),
    shared="shared_expert",
    shared_size=("shared_expert_intermediate_size",),
    shared_gate="shared_expert_gate",
    step=("decoder_sparse_step",),
)

_DEEPSEEK_MOE = Experts(
    "mlp",
    count=("n_routed_experts",),
    size=("moe_intermediate_size",),
    shared="shared_experts",
    shared_count=("n_shared_experts",),
    step=("moe_layer_freq",),
    first_dense=("first_k_dense_replace",),
)

_DEEPSEEK = Family(attention=latent_attention, experts=_DEEPSEEK_MOE)
_GLM4_MOE = Family(experts=_DEEPSEEK_MOE)
_GEMMA = Family(tied=True, defaults={"head_dim": 256})
# Gemma 3's files state only what differs from the defaults of Gemma3TextConfig.
_GEMMA3 = Family(
    tied=True,
    defaults={
        "head_dim": 256,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 262_208,
    },
)
_PHI3 = Family(attention=fused_attention("self_attn.qkv_proj", "self_attn.o_proj"), mlp=fused_mlp())
_GLM4 = Family(mlp=fused_mlp())
_CHATGLM = Family(
    attention=fused_attention(
        "self_attention.query_key_value", "self_attention.dense", heads_kv="multi_query_group_num"
    ),
    mlp=fused_mlp(
        "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", size=("ffn_hidden_size", "intermediate_size")
    ),
    layers=f"transformer.encoder.layers.{LAYER}",
    lm_head="transformer.output_layer",
)
_INTERNLM2 = Family(
    attention=fused_attention("attention.wqkv", "attention.wo"),
    mlp=mlp("feed_forward.w1", "feed_forward.w3", "feed_forward.w2"),
    lm_head="output",
)
FAMILIES: dict[str, Family] = {
    "llama": _DECODER,
    "mistral": _DECODER,
    "qwen2": _DECODER,  # also Qwen1.5 and Qwen2.5
    "qwen2_vl": _DECODER,
    "qwen2_vl_text": _DECODER,
    "qwen2_5_vl": _DECODER,
    "qwen2_5_vl_text": _DECODER,
    "qwen3": _DECODER,
    "qwen3_vl": _DECODER,
    "qwen3_vl_text": _DECODER,
    "qwen3_vl_moe": Family(experts=_QWEN_MOE),
    "qwen3_vl_moe_text": Family(experts=_QWEN_MOE),
    "mixtral": _MIXTRAL,
    "qwen2_moe": Family(experts=_QWEN_MOE),
    "qwen3_moe": Family(experts=_QWEN_MOE),
    "gemma": _GEMMA,
    "gemma2": _GEMMA,
    "gemma3": _GEMMA3,
    "gemma3_text": _GEMMA3,
    "glm": _GLM4,
    "glm4": _GLM4,
    "glm4_moe": _GLM4_MOE,
    "dots1": _GLM4_MOE,
    "chatglm": _CHATGLM,
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "phi3": _PHI3,
    "internlm2": _INTERNLM2,
}
"""By `model_type` of the (text part of the) config."""

_BESIDE = f"language_model.model.layers.{LAYER}"
_WITHIN = f"model.language_model.layers.{LAYER}"

TOWERS: dict[str, str] = {
    "internvl_chat": _BESIDE,
    "internvl": _BESIDE,
    "gemma3": _BESIDE,
    "mistral3": _BESIDE,
    "llava": _BESIDE,
    "qwen3_vl": _WITHIN,
    "qwen3_vl_moe": _WITHIN,
}
"""By the outer `model_type`: where a model of several towers has the language model's layers, if
elsewhere than the language model alone."""
