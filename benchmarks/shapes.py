# SPDX-License-Identifier: Apache-2.0
"""The layers that are measured: Qwen2-72B, ragged layers of other models, and pairs that differ in
one property. Each is cut as tensor parallelism cuts it, and the slowest rank is taken."""

from __future__ import annotations

from dataclasses import dataclass

from padmarlin.plan import plan


@dataclass(frozen=True)
class Layer:
    """A whole (k, n) layer and how it is cut."""

    model: str
    name: str
    k: int
    n: int
    axis: str  # "k": row-parallel, "n": column-parallel
    tps: tuple[int, ...] = (1,)
    group: int = 128


@dataclass(frozen=True)
class Part:
    """What one rank holds of a layer."""

    layer: Layer
    tp: int
    rank: int
    k: int
    n: int
    k_start: int
    group: int

    @property
    def ragged(self) -> bool:
        """Whether kernels that want whole tiles of 128 x 64 and whole groups must pad it."""
        step = max(self.group, 1)
        return bool(self.k % 128 or self.n % 64 or self.k % step or self.k_start % step)


TPS = (1, 2, 4, 8)

# qkv and gate_up are the merged layers that engines run.
QWEN2_72B = (
    Layer("qwen2-72b", "qkv", 8192, 10240, "n", TPS),
    Layer("qwen2-72b", "o", 8192, 8192, "k", TPS),
    Layer("qwen2-72b", "gate_up", 8192, 59136, "n", TPS),
    Layer("qwen2-72b", "down", 29568, 8192, "k", TPS),
)

# Real layers that strict kernels refuse, at the tensor parallelism where they do.
RAGGED = (
    Layer("qwen1.5-14b", "down", 13696, 5120, "k", (2,)),
    Layer("glm-4-9b", "down", 13696, 4096, "k", (2,)),
    Layer("qwen1.5-32b", "down", 27392, 5120, "k", (4,)),
    Layer("qwen2.5-7b", "down", 18944, 3584, "k", (8,)),
    Layer("qwen2.5-0.5b", "o", 896, 896, "k", (2,)),
    Layer("llama-2-7b", "down", 11008, 4096, "k", (4,)),
    Layer("llama-2-13b", "down", 13824, 5120, "k", (8,)),
    Layer("deepseek-v2-lite", "down", 10944, 2048, "k", (1, 2), 64),
    Layer("glm-4.5-air", "down", 10944, 4096, "k"),
    Layer("glm-4.5-air", "expert_down", 1408, 4096, "k", (2,)),
    Layer("qwen3-30b-a3b", "expert_down", 768, 2048, "k", (4,)),
    Layer("qwen3-235b-a22b", "expert_down", 1536, 4096, "k", (8,)),
    Layer("deepseek-coder-v2", "expert_down", 1536, 5120, "k", (8,)),
    Layer("qwen1.5-moe", "expert_down", 1408, 2048, "k", (2,)),
    Layer("dots1", "down", 10944, 4608, "k"),
    Layer("nemotron-3-nano", "expert_down", 1856, 2688, "k", (4, 8), 16),
    Layer("gpt-oss", "o", 2880, 2880, "k", (1,), 32),
    Layer("qwen3.5-27b", "in_proj_ba", 5120, 96, "n", (1, 2)),
    Layer("falcon-7b", "dense", 4544, 4544, "k", (1,), 64),
    Layer("qwen2.5-vl", "vision_gate_up", 1280, 3420, "n"),
    Layer("qwen2.5-vl", "vision_down", 3420, 1280, "k", (1,), -1),
    Layer("qwen3-vl", "vision_fc2", 4304, 1152, "k", (2,), 32),
)

# One property each; the peer "aligned" measures the layer without it in the same run.
PAIRS = (
    Layer("pairs", "k_14784", 14784, 8192, "k"),
    Layer("pairs", "k_mid_group", 29568, 8192, "k", (2, 4, 8)),
    Layer("pairs", "n_7392", 8192, 7392, "n"),
    Layer("pairs", "n_odd", 8192, 7391, "n"),
    Layer("pairs", "k_even", 14790, 8192, "k"),
    Layer("pairs", "k_odd", 14787, 8192, "k"),
)

LAYERS = QWEN2_72B + RAGGED + PAIRS
# Names that stand for several models.
COLLECTIONS = {
    "all": tuple(dict.fromkeys(layer.model for layer in LAYERS)),
    "ragged": tuple(dict.fromkeys(layer.model for layer in RAGGED)),
}


def layers_of(models: list[str]) -> list[Layer]:
    """The layers of the models named, or of the collections."""
    wanted = [name for model in models for name in COLLECTIONS.get(model, (model,))]
    known = {layer.model for layer in LAYERS}
    for name in wanted:
        if name not in known:
            choices = ", ".join([*sorted(known), *COLLECTIONS])
            raise ValueError(f"--model: got {name!r}, expected some of {choices}")
    return [layer for layer in LAYERS if layer.model in wanted]


def slowest_part(layer: Layer, tp: int, group: int | None = None) -> Part:
    """The rank that the others wait for: the one with most padding, the first such.

    Among equals one that begins inside a group is taken, so that a straddle is really measured.
    For Qwen2-72B's `down` at TP 8 that is rank 1: 3696 rows behind 48 of padding, 59 tiles of 64
    where rank 0 has 58.
    """
    group = layer.group if group is None else group
    cut = plan(layer.k, layer.n, group_size=group, tp=tp, axis=layer.axis)
    step = max(group, 1)
    rank = max(cut.ranks, key=lambda r: (r.padded_k, r.k_start % step > 0, -r.rank))
    return Part(layer, tp, rank.rank, rank.k, rank.n, rank.k_start, group)
