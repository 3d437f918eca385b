# SPDX-License-Identifier: Apache-2.0
"""Small checkpoints made to order, and what a model of their dequantized weights answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

import padmarlin
from tests.checkpoint_files import GPTQ, QUANTIZED_LAYERS, random_layer

SIZES = {"q": (256, 256), "k": (256, 128), "v": (256, 128), "o": (256, 256)}


def layer_sizes(intermediate: int) -> dict[str, tuple[int, int]]:
    """(k, n) of the quantized layers of a model like the first checkpoint."""
    mlp = {"gate": (256, intermediate), "up": (256, intermediate), "down": (intermediate, 256)}
    sizes = SIZES | mlp
    return {name: sizes[name.rpartition(".")[2].partition("_")[0]] for name in QUANTIZED_LAYERS}


def made_gptq(
    directory: Path,
    *,
    intermediate: int = 384,
    group_size: int = 64,
    bits: int = 4,
    act_order: bool = False,
    other_bits: Mapping[str, int] | None = None,
    plain: tuple[str, ...] = (),
    lm_head: bool = False,
    **settings: Any,
) -> Path:
    """A checkpoint of random quantized layers: its embeddings and norms are the first's.

    `other_bits` of single layers; `plain` ones are not quantized; with `lm_head`, the head is.
    """
    directory.mkdir(exist_ok=True)
    tensors = {
        name: tensor
        for name, tensor in load_file(GPTQ[0] / "model.safetensors").items()
        if not any(name.startswith(f"{layer}.") for layer in QUANTIZED_LAYERS)
    }
    sizes = layer_sizes(intermediate) | ({"lm_head": (256, 512)} if lm_head else {})
    for seed, (name, (k, n)) in enumerate(sizes.items()):
        generator = torch.Generator().manual_seed(seed)
        if name in plain:
            tensors[f"{name}.weight"] = torch.randn(n, k, generator=generator).half() / 32
            continue
        layer = random_layer(
            k,
            n,
            bits=(other_bits or {}).get(name, bits),
            group_size=group_size,
            act_order=act_order,
            seed=0 if "mlp.gate" in name or "mlp.up" in name else seed,
        )
        layer["scales"] = layer["scales"] / (1 if bits == 4 else 16)
        tensors |= {f"{name}.{suffix}": tensor for suffix, tensor in layer.items()}
    for name in QUANTIZED_LAYERS[:3]:
        width = sizes[name][1]
        tensors[f"{name}.bias"] = torch.randn(
            width, generator=torch.Generator().manual_seed(9)
        ).half()
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    config = json.loads((GPTQ[0] / "config.json").read_text())
    config["intermediate_size"] = intermediate
    config["tie_word_embeddings"] = not lm_head
    config["quantization_config"] = {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": group_size,
        "desc_act": act_order,
        "sym": False,
        "lm_head": lm_head,
        **settings,
    }
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def oracle(directory: Path, ids: Tensor, dtype: torch.dtype) -> Tensor:
    """Logits in float32 of the weights that ``dequantize`` says, in a model of plain layers."""
    values = json.loads((directory / "config.json").read_text())
    values.pop("quantization_config")
    config = transformers.AutoConfig.for_model(**values)
    config.dtype = torch.float32
    model = transformers.AutoModelForCausalLM.from_config(config)
    state = load_file(directory / "model.safetensors")
    codes = ("qweight", "weight_packed")
    layers = {name.rpartition(".")[0] for name in state if name.rpartition(".")[2] in codes}
    dense = {
        name: tensor.to(dtype).float()
        for name, tensor in state.items()
        if name.rpartition(".")[0] not in layers or name.endswith(".bias")
    }
    for name in layers:
        weight = padmarlin.load_weight(directory, name, dtype=dtype)
        dense[f"{name}.weight"] = padmarlin.dequantize(weight).float().t()
    found = model.load_state_dict(dense, strict=False)
    assert not found.unexpected_keys
    assert set(found.missing_keys) <= {"lm_head.weight"}
    model.tie_weights()
    with torch.no_grad():
        return model.eval()(ids).logits
