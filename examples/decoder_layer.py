# SPDX-License-Identifier: Apache-2.0
"""A decoder layer of Qwen2 or Llama out of padmarlin.nn: attention cut by heads, the MLP by columns
and rows, two reductions, whatever the number of ranks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.functional import rms_norm, scaled_dot_product_attention

from padmarlin.errors import refusal
from padmarlin.nn import MergedColumnParallelQuantLinear, QuantMLP, RowParallelQuantLinear

MODEL_TYPES = ("llama", "mistral", "qwen2")


@dataclass(frozen=True)
class Sizes:
    """What config.json says of a layer."""

    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    rope_theta: float

    @classmethod
    def read(cls, checkpoint: Path) -> Sizes:
        config = json.loads((checkpoint / "config.json").read_text())
        if config["model_type"] not in MODEL_TYPES:
            got, expected = repr(config["model_type"]), " or ".join(map(repr, MODEL_TYPES))
            argument = "'model_type' in config.json"
            raise ValueError(refusal("DecoderLayer", argument, got, expected))
        check_attention(config)
        heads = config["num_attention_heads"]
        rope = config.get("rope_parameters") or config
        return cls(
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            eps=config["rms_norm_eps"],
            rope_theta=rope.get("rope_theta", 10000.0),
        )

    def divisible_by(self, ranks: int) -> bool:
        """Whether the heads can be dealt out, each key head to the ranks of its queries."""
        most, least = max(ranks, self.kv_heads), min(ranks, self.kv_heads)
        return self.heads % ranks == 0 and most % least == 0


def check_attention(config: dict[str, Any]) -> None:
    """Refuses what would be computed wrong: positions that are scaled, and tokens that see only the
    last few before them."""
    for key in ("rope_scaling", "rope_parameters"):
        values = config.get(key) or {}
        kind = values.get("rope_type") or values.get("type") or "default"
        if kind != "default":
            raise ValueError(refusal("DecoderLayer", f"{key!r} in config.json", kind, "'default'"))
    # Mistral has a window where it names one; the others only if they say that they use it.
    windowed = config.get("use_sliding_window", config["model_type"] == "mistral")
    window = config.get("sliding_window") if windowed else None
    if window is not None or "sliding_attention" in (config.get("layer_types") or ()):
        got = f"a window of {window} tokens"
        expected = "attention to all earlier tokens"
        raise ValueError(refusal("DecoderLayer", "'sliding_window' in config.json", got, expected))


class KeyValueCache:
    """Keys and values of a fixed number of positions, so that a decode step has fixed addresses."""

    def __init__(self, layer: DecoderLayer, batch: int, positions: int) -> None:
        shape = (batch, layer.kv_heads, positions, layer.sizes.head_dim)
        like = layer.input_norm
        self.keys = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.values = torch.zeros_like(self.keys)


class DecoderLayer(nn.Module):
    """This rank's part of layer `index`; the groups that share attention and MLP may differ."""

    def __init__(
        self,
        checkpoint: Path,
        index: int = 0,
        *,
        process_group: Any = None,
        attention_group: Any = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float16,
    ) -> None:
        super().__init__()
        self.sizes = Sizes.read(checkpoint)
        prefix = f"model.layers.{index}"
        placed: dict[str, Any] = {"device": device, "dtype": dtype}
        arguments = {"process_group": attention_group or process_group, **placed}
        self.output = RowParallelQuantLinear.from_checkpoint(
            checkpoint, f"{prefix}.self_attn.o_proj", **arguments
        )
        ranks = self.output.world_size
        if not self.sizes.divisible_by(ranks):
            heads = f"{self.sizes.heads} heads and {self.sizes.kv_heads} key heads"
            raise ValueError(f"{heads} cannot be dealt out to {ranks} ranks")
        # With more ranks than key heads, neighbours have the same key head.
        copies = max(ranks // self.sizes.kv_heads, 1)
        self.heads = self.sizes.heads // ranks
        self.kv_heads = self.sizes.kv_heads * copies // ranks
        self.qkv = MergedColumnParallelQuantLinear.from_checkpoint(
            checkpoint,
            [f"{prefix}.self_attn.{name}_proj" for name in "qkv"],
            replicas=(1, copies, copies),
            **arguments,
        )
        self.mlp = QuantMLP.from_checkpoint(
            checkpoint, f"{prefix}.mlp", process_group=process_group, **placed
        )
        for name in ("input", "post_attention"):
            norm = plain_tensor(checkpoint, f"{prefix}.{name}_layernorm.weight")
            self.register_buffer(f"{name}_norm", norm.to(device, dtype))
        head_dim = self.sizes.head_dim
        exponents = torch.arange(0, head_dim, 2, device=device) / head_dim
        self.register_buffer("frequencies", self.sizes.rope_theta**-exponents)

    def forward(self, x: Tensor, positions: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """(batch, tokens, hidden) at `positions`: causal among themselves, or after the cache."""
        x = x + self._attention(self._norm(x, self.input_norm), positions, cache)
        return x + self.mlp(self._norm(x, self.post_attention_norm))

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        normed = rms_norm(x.float(), x.shape[-1:], eps=self.sizes.eps)
        return weight * normed.to(x.dtype)

    def _attention(self, x: Tensor, positions: Tensor, cache: KeyValueCache | None) -> Tensor:
        batch, tokens, _ = x.shape
        query, key, value = (
            part.view(batch, tokens, -1, self.sizes.head_dim).transpose(1, 2)
            for part in torch.split(self.qkv(x), self.qkv.split_sizes, dim=-1)
        )
        query, key = self._rotated(query, positions), self._rotated(key, positions)
        reached = positions
        if cache is not None:
            key = cache.keys.index_copy_(2, positions, key)
            value = cache.values.index_copy_(2, positions, value)
            reached = torch.arange(key.shape[2], device=x.device)
        copies = self.heads // self.kv_heads
        mixed = scaled_dot_product_attention(
            query,
            key.repeat_interleave(copies, dim=1),
            value.repeat_interleave(copies, dim=1),
            attn_mask=reached[None, :] <= positions[:, None],
        )
        return self.output(mixed.transpose(1, 2).reshape(batch, tokens, -1))

    def _rotated(self, x: Tensor, positions: Tensor) -> Tensor:
        """Rotary position embedding: element i of a head turns with element i + head_dim / 2."""
        angles = positions[:, None] * self.frequencies
        cosine, sine = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def plain_tensor(checkpoint: Path, name: str) -> Tensor:
    """A tensor that is not quantized."""
    file = "model.safetensors"
    index = checkpoint / "model.safetensors.index.json"
    if index.exists():
        file = json.loads(index.read_text())["weight_map"][name]
    with safe_open(checkpoint / file, framework="pt") as tensors:
        return tensors.get_tensor(name)
