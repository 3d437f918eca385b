# SPDX-License-Identifier: Apache-2.0
"""What ``verify_checkpoint`` found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class LayerResult:
    """One layer: its weights bit for bit, and a product with it over all ranks."""

    name: str
    k: int
    n: int
    axis: str | None  # along which it was cut; None: not cut
    not_cut: str | None  # why
    weights_wrong: int  # of k * n, over all ranks
    error: float  # of the product: |y - reference| / |reference|, Euclidean
    of_bound: float  # the largest deviation of an element as a share of what rounding allows
    faults: tuple[str, ...]  # what is wrong, in words

    @property
    def passed(self) -> bool:
        return not self.faults


@dataclass(frozen=True)
class Report:
    """Everything that was compared."""

    checkpoint: str
    other: str | None
    kind: str  # "checkpoint", "padded", "folded", "repacked": what was held against the reference
    tp: int
    backend: str
    layers: tuple[LayerResult, ...]
    tensors_compared: int = 0  # those of no quantized layer, in both checkpoints
    faults: tuple[str, ...] = ()  # of no single layer
    notes: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        return not self.faults and all(layer.passed for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        for layer, found in zip(values["layers"], self.layers, strict=True):
            layer["passed"] = found.passed
            # JSON has no NaN and no infinity.
            for key in ("error", "of_bound"):
                if not abs(layer[key]) < float("inf"):
                    layer[key] = None
        return {"schema": "padmarlin.verify/1", "passed": self.passed, **values}
