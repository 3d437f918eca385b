# SPDX-License-Identifier: Apache-2.0
"""The result: layers and choices of bits and group size, each with its error, bytes and limits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from padmarlin.models import LinearLayer, Model
from padmarlin.tradeoff.gpus import Gpu

SCHEMA = "padmarlin.tradeoff/1"
MS = (1, 16, 256)
"""Rows of the activations that limits are given for: one request, a batch, a prompt."""


@dataclass(frozen=True)
class Choice:
    """How a model could be quantized."""

    bits: int
    group_size: int

    def __str__(self) -> str:
        groups = "one group" if self.group_size == -1 else f"groups of {self.group_size}"
        return f"{self.bits} bits, {groups}"


@dataclass(frozen=True)
class Sample:
    """Which weights the errors are of."""

    source: str  # "checkpoint", or "random": normal ones
    rows: int  # at most so many output rows of every matrix; 0: all of them
    seed: int  # of the choice of rows and of the random weights
    complete: bool  # every weight of the checkpoint was read

    def __str__(self) -> str:
        if self.source == "random":
            return (
                f"a random model, no real weights: normal, seed {self.seed}, "
                f"{self.rows or 'all'} output rows of each layer"
            )
        if self.complete:
            return "the checkpoint's, all of them"
        return (
            f"the checkpoint's, a sample: {self.rows} output rows of every matrix, drawn with seed "
            f"{self.seed}"
        )


@dataclass(frozen=True)
class Entry:
    """One layer under one choice. Sizes and times are those of one matrix on one rank."""

    layer: LinearLayer
    choice: Choice
    error: float  # ||W - Q(W)|| / ||W||, over all matrices that the layer stands for
    k: int  # of a rank; 0: the layer cannot be cut so
    n: int
    rank_bytes: int  # codes and 16-bit scales with their padding, of the largest rank
    padding: float  # weights stored on all ranks beyond those there are, as a fraction
    straddles: bool  # ranks share quantization groups
    limits_us: dict[int, float]  # by M
    problem: str  # why the layer cannot be cut


@dataclass(frozen=True)
class Total:
    """All quantized layers under one choice."""

    choice: Choice
    error: float
    rank_bytes: int
    straddling: tuple[str, ...]  # layers


@dataclass(frozen=True)
class TradeoffTable:
    """What choices of bits and group size mean for a model; see `tradeoff`."""

    model: Model
    tp: int
    gpu_name: str
    gpu: Gpu
    sample: Sample
    choices: tuple[Choice, ...]
    entries: tuple[Entry, ...]  # layer by layer
    totals: tuple[Total, ...]  # choice by choice
    notes: tuple[str, ...]

    @property
    def straddle_free(self) -> tuple[Choice, ...]:
        """The choices under which no layer straddles."""
        return tuple(total.choice for total in self.totals if not total.straddling)

    @property
    def layers(self) -> tuple[LinearLayer, ...]:
        return tuple(layer for layer, kind in self.model.layers if kind is not None)

    def of(self, layer: LinearLayer) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if entry.layer is layer)

    def conclusion(self) -> str:
        """Which choices remove the straddle."""
        where = f"at TP {self.tp}"
        if len(self.straddle_free) == len(self.totals):
            return f"no choice straddles {where}"
        if not self.straddle_free:
            return f"every choice straddles {where}; smaller groups or 'padmarlin pad' remove it"
        free = "; ".join(map(str, self.straddle_free))
        return f"no straddle {where} with: {free}"

    def to_json(self) -> dict[str, Any]:
        """The table as JSON values; docs/cli-plan.md describes them."""
        return {
            "schema": SCHEMA,
            "model": {
                "path": self.model.path,
                "architecture": self.model.architecture,
                "known": self.model.known,
            },
            "tp": self.tp,
            "gpu": {"name": self.gpu_name, **asdict(self.gpu)},
            "weights": asdict(self.sample),
            "m": list(MS),
            "layers": [self._layer_json(layer) for layer in self.layers],
            "totals": [
                {
                    **asdict(total.choice),
                    "error": total.error,
                    "rank_bytes": total.rank_bytes,
                    "straddling": list(total.straddling),
                }
                for total in self.totals
            ],
            "straddle_free": [asdict(choice) for choice in self.straddle_free],
            "notes": list(self.notes),
        }

    def _layer_json(self, layer: LinearLayer) -> dict[str, Any]:
        entries = self.of(layer)
        return {
            "name": layer.pattern,
            "role": layer.role,
            "count": layer.count,
            "k": layer.k,
            "n": layer.n,
            "axis": layer.axis,
            "rank": {"k": entries[0].k, "n": entries[0].n},
            "problem": entries[0].problem,
            "choices": [
                {
                    **asdict(entry.choice),
                    "error": entry.error,
                    "rank_bytes": entry.rank_bytes,
                    "padding": entry.padding,
                    "straddles": entry.straddles,
                    "limit_us": {str(m): time for m, time in entry.limits_us.items()},
                }
                for entry in entries
            ],
        }
