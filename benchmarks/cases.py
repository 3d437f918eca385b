# SPDX-License-Identifier: Apache-2.0
"""A case: one part of a layer at one M, with one kind of weight. And which cases a run measures."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from benchmarks.shapes import Layer, Part, layers_of, slowest_part

ACTIVATION_BYTES = 2  # fp16, bf16

FULL_M = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 256, 512, 1024, 4096)
QUICK_M = (1, 16, 64, 256)
# A sweep has what stands on both sides of the kernels' tile edges: it shows their steps.
EDGES = (8, 16, 24, 32, 48, 64, 96, 128, 176, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
SWEEP_M = tuple(
    sorted({1, 2, 4, *EDGES, *(e - 1 for e in EDGES), *(e + 1 for e in EDGES if e < 4096)})
)


@dataclass(frozen=True)
class Coding:
    """How the weights are quantized, but for the group, which a layer may choose."""

    dtype: str = "float16"
    bits: int = 4
    act_order: bool = False
    symmetric: bool = True


@dataclass(frozen=True)
class Case:
    """One product (m, k) x (k, n)."""

    part: Part
    m: int
    coding: Coding

    @property
    def groups(self) -> int:
        """Scale rows that the part touches. With act-order the group of a row is no matter of
        its place: a part takes rows of every group, as many as it has rows."""
        part = self.part
        if part.group == -1:
            return 1
        if self.coding.act_order:
            return min(-(-part.layer.k // part.group), part.k)
        return (part.k_start + part.k - 1) // part.group - part.k_start // part.group + 1

    @property
    def weight_bytes(self) -> int:
        """The fewest bytes that say what the weight is: codes, scales, zero points, no padding."""
        part, bits = self.part, self.coding.bits
        scale_bits = 16 + (0 if self.coding.symmetric else bits)
        return (part.k * part.n * bits + self.groups * part.n * scale_bits + 7) // 8

    @property
    def bytes(self) -> int:
        """Weights, activations and results, each moved once."""
        return self.weight_bytes + self.m * (self.part.k + self.part.n) * ACTIVATION_BYTES

    @property
    def flops(self) -> int:
        return 2 * self.m * self.part.k * self.part.n


def parse_m(text: str) -> tuple[int, ...]:
    """`1,16,64`, `sweep` or `full`."""
    named = {"sweep": SWEEP_M, "full": FULL_M, "quick": QUICK_M}
    if text in named:
        return named[text]
    try:
        sizes = tuple(int(word) for word in text.split(","))
    except ValueError:
        sizes = (0,)
    if min(sizes) < 1:
        expected = f"numbers from 1 on, or one of {', '.join(named)}"
        raise ValueError(f"--m: got {text!r}, expected {expected}")
    return sizes


def select_cases(
    models: list[str],
    tps: tuple[int, ...] | None,
    ms: tuple[int, ...],
    codings: list[Coding],
    group: int | None,
) -> list[Case]:
    """All M of a part together, since they share its weights; parts in the order of shapes.py.

    A layer is cut only as its own list of tensor parallelisms says, `tps` narrows that.
    """
    parts = [
        slowest_part(layer, tp, group)
        for layer in layers_of(models)
        for tp in layer.tps
        if tps is None or tp in tps
    ]
    return [
        Case(part, m, coding)
        for part, coding, m in product(parts, codings, ms)
        # One group has no order.
        if not (coding.act_order and part.group == -1)
    ]


# About two minutes on an H200: both ends of the sizes, a straddle, the oddest widths.
QUICK: tuple[tuple[str, str, int], ...] = (
    ("qwen2-72b", "down", 1),
    ("qwen2-72b", "down", 2),
    ("qwen2-72b", "gate_up", 4),
    ("qwen2-72b", "down", 8),
    ("qwen2-72b", "o", 8),
    ("glm-4.5-air", "down", 1),
    ("qwen2.5-vl", "vision_gate_up", 1),
    ("pairs", "k_14784", 1),
    ("pairs", "n_7392", 1),
    ("pairs", "k_odd", 1),
)


def quick_cases(ms: tuple[int, ...], codings: list[Coding], group: int | None) -> list[Case]:
    by_name: dict[tuple[str, str], Layer] = {
        (layer.model, layer.name): layer for layer in layers_of(["all"])
    }
    parts = [slowest_part(by_name[model, name], tp, group) for model, name, tp in QUICK]
    return [Case(part, m, coding) for part, coding, m in product(parts, codings, ms)]
