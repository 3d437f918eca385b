# SPDX-License-Identifier: Apache-2.0
"""Whole random checkpoints of the harder kinds, written as quantizers write them, and their logits
by Transformers in float32 from the weights as tests/oracle.py reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests import oracle
from tests.oracle import Layer

HIDDEN, HEAD, HEADS, VOCABULARY, BLOCKS = 256, 64, 4, 512, 2
PROMPTS, LENGTH = 2, 24

Maker = Callable[[np.random.Generator, int, int], Layer]


def make_checkpoint(
    folder: Path,
    seed: int,
    intermediate: int,
    kv_heads: int,
    make: Maker,
    settings: dict[str, Any],
    adapter: Path | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Writes it, and a LoRA adapter for all of its linear layers if a folder is given for one;
    (prompts, logits), the logits with the adapter."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        hidden_size=HIDDEN,
        intermediate_size=intermediate,
        num_hidden_layers=BLOCKS,
        num_attention_heads=HEADS,
        num_key_value_heads=kv_heads,
        vocab_size=VOCABULARY,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(config).float().eval()
    rng = np.random.default_rng(seed)
    tensors, dense = _quantized(rng, intermediate, kv_heads, make)
    # What is not quantized is rounded to fp16 here and there.
    for name, value in model.state_dict().items():
        module = name.removesuffix(".weight")
        if module not in tensors and not name.startswith("lm_head"):
            # Of a size that lets every layer be seen in the logits; norms stay 1.
            random = torch.randn_like(value) * 0.1
            dense[name] = value if "norm" in name else random.half().float()
    deltas = {} if adapter is None else _write_adapter(adapter, rng, dense, list(tensors))
    together = {name: value + deltas.get(name, 0) for name, value in dense.items()}
    model.load_state_dict(together, strict=False)
    prompts = rng.integers(0, VOCABULARY, (PROMPTS, LENGTH))
    with torch.no_grad():
        logits = model(torch.from_numpy(prompts)).logits.numpy()

    kept = {name: value.half() for name, value in dense.items()}
    for module, own in tensors.items():
        del kept[f"{module}.weight"]
        kept.update({f"{module}.{name}": tensor for name, tensor in own.items()})
    folder.mkdir(parents=True)
    save_file(
        {name: value.contiguous() for name, value in kept.items()}, folder / "model.safetensors"
    )
    written = {**config.to_dict(), "architectures": ["Qwen2ForCausalLM"], "dtype": "float16"}
    written["quantization_config"] = settings
    (folder / "config.json").write_text(json.dumps(written))
    return prompts, logits


def _quantized(
    rng: np.random.Generator, intermediate: int, kv_heads: int, make: Maker
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Of each linear layer (its tensors, its weight as Transformers has it)."""
    q, kv = HEADS * HEAD, kv_heads * HEAD
    fused = [
        ("self_attn", HIDDEN, {"q_proj": q, "k_proj": kv, "v_proj": kv}),
        ("self_attn", q, {"o_proj": HIDDEN}),
        ("mlp", HIDDEN, {"gate_proj": intermediate, "up_proj": intermediate}),
        ("mlp", intermediate, {"down_proj": HIDDEN}),
    ]
    tensors, dense = {}, {}
    for block in range(BLOCKS):
        for parent, k, parts in fused:
            first: Layer | None = None
            for name, n in parts.items():
                layer = make(rng, k, n)
                if first is not None and isinstance(layer, oracle.Gptq):
                    layer = replace(layer, g_idx=first.g_idx)
                first = first or layer
                module = f"model.layers.{block}.{parent}.{name}"
                tensors[module] = layer.tensors()
                dense[f"{module}.weight"] = layer.dequantized().t().float()
    return tensors, dense


def _write_adapter(
    folder: Path, rng: np.random.Generator, dense: dict[str, Tensor], modules: list[str]
) -> dict[str, Tensor]:
    """As PEFT writes one; what it adds to each weight."""
    rank, alpha = 8, 16
    tensors, deltas = {}, {}
    for module in modules:
        n, k = dense[f"{module}.weight"].shape
        a, b = (
            torch.from_numpy(rng.normal(0, 0.1, size)).half() for size in ((rank, k), (n, rank))
        )
        tensors[f"base_model.model.{module}.lora_A.weight"] = a
        tensors[f"base_model.model.{module}.lora_B.weight"] = b
        deltas[f"{module}.weight"] = alpha / rank * (b.float() @ a.float())
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": alpha,
        "bias": "none",
        "target_modules": sorted({module.rpartition(".")[2] for module in modules}),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return deltas
