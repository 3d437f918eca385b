# SPDX-License-Identifier: Apache-2.0
"""A model's linear layers as engines fuse and cut them, equal ones in one entry."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

Axis = Literal["k", "n"]

LAYER = "{layer}"
EXPERT = "{expert}"


@dataclass(frozen=True)
class Part:
    """One of the matrices that are fused along N. A rank gets whole `unit`s of it: heads."""

    name: str
    n: int
    unit: int = 1
    replicate: bool = False  # fewer units than ranks: several ranks hold the same unit (KV heads)

    def per_rank(self, tp: int) -> int:
        """Columns of a rank; 0: it cannot be cut over `tp` ranks."""
        units = self.n // self.unit
        if units % tp == 0:
            return self.n // tp
        return self.unit if self.replicate and tp % units == 0 else 0


@dataclass(frozen=True)
class LinearLayer:
    """A linear layer: y (n) = x (k) W, and how tensor parallelism cuts it."""

    name: str  # "model.layers.{layer}.mlp.gate_up_proj"
    role: str  # qkv, o, gate_up, down, experts_gate_up, experts_down, ...
    k: int
    parts: tuple[Part, ...]
    axis: Axis | None  # "k": row-parallel, "n": column-parallel, None: every rank holds all of it
    k_unit: int = 1  # rows that stay together when K is cut: a head
    modules: tuple[str, ...] = ()  # in the checkpoint: "model.layers.{layer}.mlp.gate_proj", ...
    layers: tuple[int, ...] = ()
    experts: int = 0  # in each layer; 0: it is none of several experts
    quantized: bool = True  # as quantizers and engines do by default
    size_key: str = ""  # an MLP's: the config's key that says its intermediate size
    size_times: int = 1  # how many times that size it has (DeepSeek's shared experts)

    @property
    def n(self) -> int:
        return sum(part.n for part in self.parts)

    @property
    def count(self) -> int:
        """How many such matrices the model has."""
        return max(len(self.layers), 1) * max(self.experts, 1)

    @property
    def pattern(self) -> str:
        """The name with its ranges: "model.layers.{0..79}.mlp.down_proj"."""
        name = self.name.replace(LAYER, number_ranges(self.layers))
        return name.replace(EXPERT, number_ranges(range(self.experts)))

    def k_per_rank(self, tp: int) -> int:
        """Rows of a rank; 0: they cannot be cut over `tp` ranks."""
        if self.axis != "k":
            return self.k
        return 0 if (self.k // self.k_unit) % tp else self.k // tp

    def n_per_rank(self, tp: int) -> tuple[int, ...]:
        """Columns of a rank, part by part; a 0: they cannot be cut over `tp` ranks."""
        if self.axis != "n":
            return tuple(part.n for part in self.parts)
        return tuple(part.per_rank(tp) for part in self.parts)


def number_ranges(numbers: Iterable[int]) -> str:
    """Sorted numbers, short: [0, 1, 2, 5] -> "{0..2,5}", [7] -> "7"."""
    runs = []
    for _, group in groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        runs.append(str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}")
    text = ",".join(runs)
    return text if text.isdigit() else f"{{{text}}}"
