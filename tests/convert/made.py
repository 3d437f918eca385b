# SPDX-License-Identifier: Apache-2.0
"""Small checkpoints of every format and kind of MLP, and an independent reading of their layers by
tests/oracle.py. Seeds: given with each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.oracle import (
    Awq,
    CompressedTensors,
    Gptq,
    random_awq,
    random_compressed_tensors,
    random_gptq,
)

HIDDEN = 128
Maker = Callable[[np.random.Generator, int, int], dict[str, Tensor]]


def gptq(bits: int = 4, group_size: int = 32, **more: Any) -> tuple[Maker, dict[str, Any]]:
    """How to make a layer, and what config.json says of it."""
    more = {"symmetric": False, **more}
    act_order = more.get("act_order", False)

    def make(rng: np.random.Generator, k: int, n: int) -> dict[str, Tensor]:
        layer = random_gptq(rng, k, n, bits=bits, group_size=group_size, **more)
        tensors = layer.tensors()
        if not act_order:
            size = k if group_size == -1 else group_size
            tensors["g_idx"] = (torch.arange(k) // size).to(torch.int32)
        return tensors

    return make, {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": group_size,
        "desc_act": act_order,
        "sym": more["symmetric"],
        "checkpoint_format": more.get("checkpoint_format", "gptq"),
    }


def awq(group_size: int = 32) -> tuple[Maker, dict[str, Any]]:
    def make(rng: np.random.Generator, k: int, n: int) -> dict[str, Tensor]:
        return random_awq(rng, k, n, group_size=group_size).tensors()

    config = {"quant_method": "awq", "bits": 4, "group_size": group_size, "zero_point": True}
    return make, {**config, "version": "gemm"}


def compressed(
    bits: int = 4, group_size: int = 32, symmetric: bool = True, act_order: bool = False
) -> tuple[Maker, dict[str, Any]]:
    def make(rng: np.random.Generator, k: int, n: int) -> dict[str, Tensor]:
        return random_compressed_tensors(
            rng, k, n, bits=bits, group_size=group_size, symmetric=symmetric, act_order=act_order
        ).tensors()

    weights = {
        "num_bits": bits,
        "group_size": None if group_size == -1 else group_size,
        "strategy": "channel" if group_size == -1 else "group",
        "symmetric": symmetric,
        "type": "int",
        "actorder": "group" if act_order else None,
    }
    group = {"targets": ["Linear"], "weights": weights, "format": "pack-quantized"}
    return make, {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }


def plain(dtype: torch.dtype = torch.float16) -> tuple[Maker, dict[str, Any] | None]:
    def make(rng: np.random.Generator, k: int, n: int) -> dict[str, Tensor]:
        return {"weight": torch.from_numpy(rng.standard_normal((n, k))).to(dtype)}

    return make, None


def qwen2(size: int, depth: int = 2) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    """config.json, and (K, N) of every layer of the MLPs."""
    shapes = {}
    for number in range(depth):
        block = f"model.layers.{number}.mlp"
        shapes[f"{block}.gate_proj"] = shapes[f"{block}.up_proj"] = (HIDDEN, size)
        shapes[f"{block}.down_proj"] = (size, HIDDEN)
    return _config("qwen2", depth, intermediate_size=size), shapes


def phi3(size: int, depth: int = 1) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    shapes = {}
    for number in range(depth):
        shapes[f"model.layers.{number}.mlp.gate_up_proj"] = (HIDDEN, 2 * size)
        shapes[f"model.layers.{number}.mlp.down_proj"] = (size, HIDDEN)
    return _config("phi3", depth, intermediate_size=size), shapes


def qwen2_moe(
    size: int, shared: int, depth: int = 1, experts: int = 3
) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    shapes = {}
    for number in range(depth):
        mlp = f"model.layers.{number}.mlp"
        blocks = {f"{mlp}.experts.{expert}": size for expert in range(experts)}
        for block, width in {**blocks, f"{mlp}.shared_expert": shared}.items():
            shapes[f"{block}.gate_proj"] = shapes[f"{block}.up_proj"] = (HIDDEN, width)
            shapes[f"{block}.down_proj"] = (width, HIDDEN)
    config = _config(
        "qwen2_moe",
        depth,
        intermediate_size=5 * size,
        moe_intermediate_size=size,
        shared_expert_intermediate_size=shared,
        num_experts=experts,
    )
    return config, shapes


def mixtral(size: int, experts: int = 2) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    shapes = {}
    for expert in range(experts):
        block = f"model.layers.0.block_sparse_moe.experts.{expert}"
        shapes[f"{block}.w1"] = shapes[f"{block}.w3"] = (HIDDEN, size)
        shapes[f"{block}.w2"] = (size, HIDDEN)
    config = _config("mixtral", 1, intermediate_size=size, num_local_experts=experts)
    return config, shapes


def deepseek(
    size: int, dense: int, experts: int = 2, shared: int = 2
) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    """Layer 0 dense, layer 1 of experts with a shared one of several times their size, and layer 2
    beyond num_hidden_layers, which predicts further tokens."""
    shapes = {}
    blocks = {"model.layers.0.mlp": dense}
    for number in (1, 2):
        mlp = f"model.layers.{number}.mlp"
        blocks |= {f"{mlp}.experts.{expert}": size for expert in range(experts)}
        blocks[f"{mlp}.shared_experts"] = shared * size
    for block, width in blocks.items():
        shapes[f"{block}.gate_proj"] = shapes[f"{block}.up_proj"] = (HIDDEN, width)
        shapes[f"{block}.down_proj"] = (width, HIDDEN)
    config = _config(
        "deepseek_v3",
        2,
        intermediate_size=dense,
        moe_intermediate_size=size,
        n_routed_experts=experts,
        n_shared_experts=shared,
        first_k_dense_replace=1,
        kv_lora_rank=32,
        qk_rope_head_dim=16,
        qk_nope_head_dim=16,
        v_head_dim=16,
    )
    return config, shapes


def _config(model_type: str, depth: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "hidden_size": HIDDEN,
        "num_hidden_layers": depth,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        **more,
    }


def write(
    folder: Path,
    model: tuple[dict[str, Any], dict[str, tuple[int, int]]],
    kind: tuple[Maker, dict[str, Any] | None],
    *,
    seed: int,
    files: int = 1,
    biases: bool = False,
) -> Path:
    """The checkpoint; in several files there is an index."""
    folder.mkdir()
    config, shapes = model
    make, quantization = kind
    rng = np.random.default_rng(seed)
    tensors = {"model.norm.weight": torch.ones(HIDDEN, dtype=torch.float16)}
    for name, (k, n) in shapes.items():
        tensors |= {f"{name}.{suffix}": tensor for suffix, tensor in make(rng, k, n).items()}
        if biases:
            tensors[f"{name}.bias"] = torch.from_numpy(rng.standard_normal(n)).half()
    if quantization is not None:
        config = {**config, "quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "tokenizer.json").write_text('{"nothing": "of interest"}')
    (folder / "more").mkdir()
    (folder / "more" / "notes.txt").write_text("kept")
    names = list(tensors)
    weight_map = {}
    for number in range(files):
        file = f"model-{number + 1:05}-of-{files:05}.safetensors"
        file = file if files > 1 else "model.safetensors"
        part = {name: tensors[name].contiguous() for name in names[number::files]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    if files > 1:
        total = sum(tensor.nbytes for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return folder


def tensors_of(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def dequantized(folder: Path, name: str) -> np.ndarray:
    """(k, n) in float64, by the oracle alone."""
    config = json.loads((folder / "config.json").read_text()).get("quantization_config", {})
    tensors = {
        key.rpartition(".")[2]: (value.float() if value.is_floating_point() else value).numpy()
        for key, value in tensors_of(folder).items()
        if key.rpartition(".")[0] == name
    }
    if "weight" in tensors:
        return tensors["weight"].T.astype(np.float64)
    layer: Gptq | Awq | CompressedTensors
    if "weight_packed" in tensors:
        weights = config["config_groups"]["group_0"]["weights"]
        layer = CompressedTensors(
            tensors["weight_packed"],
            tensors["weight_scale"],
            tensors.get("weight_zero_point"),
            tensors.get("weight_g_idx"),
            tensors["weight_shape"],
            weights["num_bits"],
            weights["group_size"] or -1,
        )
    elif config["quant_method"] == "awq":
        layer = Awq(tensors["qweight"], tensors["scales"], tensors["qzeros"], config["group_size"])
    else:
        layer = Gptq(
            tensors["qweight"],
            tensors["scales"],
            tensors["qzeros"],
            tensors["g_idx"],
            len(tensors["g_idx"]),
            config["bits"],
            config["group_size"],
            config["checkpoint_format"],
        )
    groups = layer.row_groups()
    differences = layer.codes() - layer.zeros()[groups]
    return differences * layer.scale_table().astype(np.float64)[groups]
