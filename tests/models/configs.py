# SPDX-License-Identifier: Apache-2.0
"""config.json of well-known models, cut down to the keys that say how large their layers are, and
their linear layers as engines fuse them: (name, K, N, axis, how many)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Row = tuple[str, int, int, str | None, int]


def dense(
    hidden: int, qkv: int, o: int, size: int, depth: int, prefix: str = "model.layers."
) -> list[Row]:
    """The four layers of a decoder whose layers are all alike."""
    layer = f"{prefix}{{0..{depth - 1}}}"
    return [
        (f"{layer}.self_attn.qkv_proj", hidden, qkv, "n", depth),
        (f"{layer}.self_attn.o_proj", o, hidden, "k", depth),
        (f"{layer}.mlp.gate_up_proj", hidden, 2 * size, "n", depth),
        (f"{layer}.mlp.down_proj", size, hidden, "k", depth),
    ]


def decoder(
    model_type: str, hidden: int, size: int, depth: int, heads: int, kv_heads: int, **more: Any
) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "hidden_size": hidden,
        "intermediate_size": size,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "tie_word_embeddings": True,
        **more,
    }


QWEN2_72B = decoder("qwen2", 8192, 29568, 80, 64, 8)

CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2-72b": QWEN2_72B,
    "qwen2.5-0.5b": decoder("qwen2", 896, 4864, 24, 14, 2),
    "qwen3-8b": decoder("qwen3", 4096, 12288, 36, 32, 8, head_dim=128),
    "llama-2-7b": decoder("llama", 4096, 11008, 32, 32, 32, vocab_size=32000)
    | {"tie_word_embeddings": False},
    "mistral-7b": decoder("mistral", 4096, 14336, 32, 32, 8, head_dim=None),
    "mixtral-8x7b": decoder("mixtral", 4096, 14336, 32, 32, 8, num_local_experts=8),
    "gemma-7b": decoder("gemma", 3072, 24576, 28, 16, 16, head_dim=256),
    "gemma-2-9b": decoder("gemma2", 3584, 14336, 42, 16, 8, head_dim=256),
    # The text part of the 4B's file states no heads.
    "gemma-3-4b": {
        "model_type": "gemma3",
        "text_config": {
            "model_type": "gemma3_text",
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": 34,
        },
        "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 1152},
    },
    "glm-4-9b-0414": decoder("glm4", 4096, 13696, 40, 32, 2, head_dim=128),
    "glm-4-9b-chat": {
        "model_type": "chatglm",
        "hidden_size": 4096,
        "ffn_hidden_size": 13696,
        "num_layers": 40,
        "num_attention_heads": 32,
        "multi_query_group_num": 2,
        "kv_channels": 128,
        "padded_vocab_size": 151552,
    },
    "glm-4.5-air": decoder(
        "glm4_moe",
        4096,
        10944,
        46,
        96,
        8,
        head_dim=128,
        n_routed_experts=128,
        n_shared_experts=1,
        moe_intermediate_size=1408,
        first_k_dense_replace=1,
    ),
    "deepseek-v2-lite": decoder(
        "deepseek_v2",
        2048,
        10944,
        27,
        16,
        16,
        q_lora_rank=None,
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
        n_routed_experts=64,
        n_shared_experts=2,
        moe_intermediate_size=1408,
        moe_layer_freq=1,
        first_k_dense_replace=1,
    ),
    "deepseek-v3": decoder(
        "deepseek_v3",
        7168,
        18432,
        61,
        128,
        128,
        q_lora_rank=1536,
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
        n_routed_experts=256,
        n_shared_experts=1,
        moe_intermediate_size=2048,
        moe_layer_freq=1,
        first_k_dense_replace=3,
        quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]},
    ),
    "phi-3-mini": decoder("phi3", 3072, 8192, 32, 32, 32),
    "qwen1.5-moe-a2.7b": decoder(
        "qwen2_moe",
        2048,
        5632,
        24,
        16,
        16,
        num_experts=60,
        moe_intermediate_size=1408,
        shared_expert_intermediate_size=5632,
        decoder_sparse_step=1,
        mlp_only_layers=[],
    ),
    "qwen3-30b-a3b": decoder(
        "qwen3_moe",
        2048,
        6144,
        48,
        32,
        4,
        head_dim=128,
        num_experts=128,
        moe_intermediate_size=768,
        decoder_sparse_step=1,
        mlp_only_layers=[],
    ),
    "internvl3-78b": {
        "model_type": "internvl_chat",
        "llm_config": decoder("qwen2", 8192, 29568, 80, 64, 8),
        "vision_config": {"model_type": "intern_vit_6b", "hidden_size": 3200},
    },
    "internvl2-8b": {
        "model_type": "internvl_chat",
        "llm_config": decoder("internlm2", 4096, 14336, 32, 32, 8),
    },
    # Before Transformers 4.52 the language model's keys stood outside.
    "qwen2-vl-72b": decoder("qwen2_vl", 8192, 29568, 80, 64, 8)
    | {"vision_config": {"depth": 32, "embed_dim": 1280}},
    "qwen2.5-vl-7b": {
        "model_type": "qwen2_5_vl",
        "text_config": decoder("qwen2_5_vl_text", 3584, 18944, 28, 28, 4),
    },
    "qwen3-vl-8b": {
        "model_type": "qwen3_vl",
        "text_config": decoder("qwen3_vl_text", 4096, 12288, 36, 32, 8, head_dim=128),
    },
}

_BESIDE = "language_model.model.layers."

LAYERS: dict[str, list[Row]] = {
    "qwen2-72b": dense(8192, 10240, 8192, 29568, 80),
    "qwen2.5-0.5b": dense(896, 1152, 896, 4864, 24),
    "qwen3-8b": dense(4096, 6144, 4096, 12288, 36),
    "llama-2-7b": [
        *dense(4096, 12288, 4096, 11008, 32),
        ("lm_head", 4096, 32000, "n", 1),
    ],
    "mistral-7b": dense(4096, 6144, 4096, 14336, 32),
    "mixtral-8x7b": [
        *dense(4096, 6144, 4096, 14336, 32)[:2],
        ("model.layers.{0..31}.block_sparse_moe.gate", 4096, 8, None, 32),
        (
            "model.layers.{0..31}.block_sparse_moe.experts.{0..7}.gate_up_proj",
            4096,
            28672,
            "n",
            256,
        ),
        ("model.layers.{0..31}.block_sparse_moe.experts.{0..7}.w2", 14336, 4096, "k", 256),
    ],
    "gemma-7b": dense(3072, 12288, 4096, 24576, 28),
    "gemma-2-9b": dense(3584, 8192, 4096, 14336, 42),
    "gemma-3-4b": dense(2560, 4096, 2048, 10240, 34, _BESIDE),
    "glm-4-9b-0414": dense(4096, 4608, 4096, 13696, 40),
    "glm-4-9b-chat": [
        ("transformer.encoder.layers.{0..39}.self_attention.query_key_value", 4096, 4608, "n", 40),
        ("transformer.encoder.layers.{0..39}.self_attention.dense", 4096, 4096, "k", 40),
        ("transformer.encoder.layers.{0..39}.mlp.dense_h_to_4h", 4096, 27392, "n", 40),
        ("transformer.encoder.layers.{0..39}.mlp.dense_4h_to_h", 13696, 4096, "k", 40),
        ("transformer.output_layer", 4096, 151552, "n", 1),
    ],
    "glm-4.5-air": [
        ("model.layers.{0..45}.self_attn.qkv_proj", 4096, 14336, "n", 46),
        ("model.layers.{0..45}.self_attn.o_proj", 12288, 4096, "k", 46),
        ("model.layers.0.mlp.gate_up_proj", 4096, 21888, "n", 1),
        ("model.layers.0.mlp.down_proj", 10944, 4096, "k", 1),
        ("model.layers.{1..45}.mlp.gate", 4096, 128, None, 45),
        ("model.layers.{1..45}.mlp.experts.{0..127}.gate_up_proj", 4096, 2816, "n", 5760),
        ("model.layers.{1..45}.mlp.experts.{0..127}.down_proj", 1408, 4096, "k", 5760),
        ("model.layers.{1..45}.mlp.shared_experts.gate_up_proj", 4096, 2816, "n", 45),
        ("model.layers.{1..45}.mlp.shared_experts.down_proj", 1408, 4096, "k", 45),
    ],
    "deepseek-v2-lite": [
        ("model.layers.{0..26}.self_attn.q_proj", 2048, 3072, "n", 27),
        ("model.layers.{0..26}.self_attn.kv_a_proj_with_mqa", 2048, 576, None, 27),
        ("model.layers.{0..26}.self_attn.kv_b_proj", 512, 4096, "n", 27),
        ("model.layers.{0..26}.self_attn.o_proj", 2048, 2048, "k", 27),
        ("model.layers.0.mlp.gate_up_proj", 2048, 21888, "n", 1),
        ("model.layers.0.mlp.down_proj", 10944, 2048, "k", 1),
        ("model.layers.{1..26}.mlp.gate", 2048, 64, None, 26),
        ("model.layers.{1..26}.mlp.experts.{0..63}.gate_up_proj", 2048, 2816, "n", 1664),
        ("model.layers.{1..26}.mlp.experts.{0..63}.down_proj", 1408, 2048, "k", 1664),
        ("model.layers.{1..26}.mlp.shared_experts.gate_up_proj", 2048, 5632, "n", 26),
        ("model.layers.{1..26}.mlp.shared_experts.down_proj", 2816, 2048, "k", 26),
    ],
    "deepseek-v3": [
        ("model.layers.{0..60}.self_attn.fused_qkv_a_proj", 7168, 2112, None, 61),
        ("model.layers.{0..60}.self_attn.q_b_proj", 1536, 24576, "n", 61),
        ("model.layers.{0..60}.self_attn.kv_b_proj", 512, 32768, "n", 61),
        ("model.layers.{0..60}.self_attn.o_proj", 16384, 7168, "k", 61),
        ("model.layers.{0..2}.mlp.gate_up_proj", 7168, 36864, "n", 3),
        ("model.layers.{0..2}.mlp.down_proj", 18432, 7168, "k", 3),
        ("model.layers.{3..60}.mlp.gate", 7168, 256, None, 58),
        ("model.layers.{3..60}.mlp.experts.{0..255}.gate_up_proj", 7168, 4096, "n", 14848),
        ("model.layers.{3..60}.mlp.experts.{0..255}.down_proj", 2048, 7168, "k", 14848),
        ("model.layers.{3..60}.mlp.shared_experts.gate_up_proj", 7168, 4096, "n", 58),
        ("model.layers.{3..60}.mlp.shared_experts.down_proj", 2048, 7168, "k", 58),
    ],
    "phi-3-mini": dense(3072, 9216, 3072, 8192, 32),
    "qwen1.5-moe-a2.7b": [
        *dense(2048, 6144, 2048, 5632, 24)[:2],
        ("model.layers.{0..23}.mlp.gate", 2048, 60, None, 24),
        ("model.layers.{0..23}.mlp.experts.{0..59}.gate_up_proj", 2048, 2816, "n", 1440),
        ("model.layers.{0..23}.mlp.experts.{0..59}.down_proj", 1408, 2048, "k", 1440),
        ("model.layers.{0..23}.mlp.shared_expert.gate_up_proj", 2048, 11264, "n", 24),
        ("model.layers.{0..23}.mlp.shared_expert.down_proj", 5632, 2048, "k", 24),
        ("model.layers.{0..23}.mlp.shared_expert_gate", 2048, 1, None, 24),
    ],
    "qwen3-30b-a3b": [
        *dense(2048, 5120, 4096, 768, 48)[:2],
        ("model.layers.{0..47}.mlp.gate", 2048, 128, None, 48),
        ("model.layers.{0..47}.mlp.experts.{0..127}.gate_up_proj", 2048, 1536, "n", 6144),
        ("model.layers.{0..47}.mlp.experts.{0..127}.down_proj", 768, 2048, "k", 6144),
    ],
    "internvl3-78b": dense(8192, 10240, 8192, 29568, 80, _BESIDE),
    "internvl2-8b": [
        ("language_model.model.layers.{0..31}.attention.wqkv", 4096, 6144, "n", 32),
        ("language_model.model.layers.{0..31}.attention.wo", 4096, 4096, "k", 32),
        ("language_model.model.layers.{0..31}.feed_forward.gate_up_proj", 4096, 28672, "n", 32),
        ("language_model.model.layers.{0..31}.feed_forward.w2", 14336, 4096, "k", 32),
    ],
    "qwen2-vl-72b": dense(8192, 10240, 8192, 29568, 80),
    "qwen2.5-vl-7b": dense(3584, 4608, 3584, 18944, 28),
    "qwen3-vl-8b": dense(4096, 6144, 4096, 12288, 36, "model.language_model.layers."),
}


def write(directory: Path, config: object) -> Path:
    """A config.json with the given content."""
    path = directory / "config.json"
    path.write_text(json.dumps(config))
    return path
