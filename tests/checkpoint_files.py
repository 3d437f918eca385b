# SPDX-License-Identifier: Apache-2.0
"""Checkpoint directories for tests: the six real ones, and small ones made to order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

_CHECKPOINTS = Path(__file__).parent / "checkpoints"
GPTQ = sorted(_CHECKPOINTS.glob("gptq*"))
AWQ = _CHECKPOINTS / "awq4_g64_i1344"
COMPRESSED_TENSORS = _CHECKPOINTS / "ct_w4a16_g128_sym_i384"
REAL = [*GPTQ, AWQ, COMPRESSED_TENSORS]
QUANTIZED_LAYERS = [
    f"model.layers.0.{name}"
    for name in (
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    )
]


def reference(directory: Path, layer: str, key: str) -> np.ndarray:
    """What the quantizer's own package says of a layer (tests/checkpoints/README.md)."""
    with np.load(directory / "reference.npz") as arrays:
        return arrays[f"{layer}|{key}"]


def tensors_of(directory: Path, layer: str) -> dict[str, Tensor]:
    """A layer's tensors by the last part of their names."""
    tensors = load_file(directory / "model.safetensors")
    return {name.rpartition(".")[2]: t for name, t in tensors.items() if name.startswith(layer)}


def quantization_config(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "config.json").read_text())["quantization_config"]


def random_layer(
    k: int, n: int, *, bits: int, group_size: int, act_order: bool = False, seed: int = 0
) -> dict[str, Tensor]:
    """Random tensors of an asymmetric GPTQ layer."""
    generator = torch.Generator().manual_seed(seed)

    def words(*shape: int) -> Tensor:
        return torch.randint(-(2**31), 2**31, shape, generator=generator).to(torch.int32)

    size = k if group_size == -1 else group_size
    groups = -(-k // size)
    g_idx = torch.arange(k) // size
    if act_order:
        g_idx = g_idx[torch.randperm(k, generator=generator)]
    return {
        "qweight": words(-(-k * bits // 32), n),
        "qzeros": words(groups, -(-n * bits // 32)),
        "scales": (torch.rand(groups, n, generator=generator) * 0.02 + 0.001).half(),
        "g_idx": g_idx.to(torch.int32),
    }


def write_checkpoint(
    directory: Path,
    layers: Mapping[str, Mapping[str, Tensor]],
    config: Mapping[str, Any],
    file: str = "model.safetensors",
) -> Path:
    """A checkpoint directory with one file of layers and ``config`` in its config.json."""
    directory.mkdir(exist_ok=True)
    named = {
        f"{layer}.{suffix}": tensor.contiguous()
        for layer, tensors in layers.items()
        for suffix, tensor in tensors.items()
    }
    save_file(named, directory / file)
    (directory / "config.json").write_text(json.dumps({"quantization_config": dict(config)}))
    return directory


def gptq_config(bits: int = 4, group_size: int = 128, **more: Any) -> dict[str, Any]:
    return {"quant_method": "gptq", "bits": bits, "group_size": group_size, **more}
