# SPDX-License-Identifier: Apache-2.0
"""``plan_model``: every linear layer of a model at every tensor-parallel size: what engines say,
what padmarlin does, and what else can be done."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from padmarlin.engines import ENGINES, Verdict
from padmarlin.errors import check_choice, check_group_size, check_int, refusal
from padmarlin.models.advice import advise
from padmarlin.models.cuts import LayerCut, plan_layer
from padmarlin.models.layers import LinearLayer
from padmarlin.models.quantization import Quantization
from padmarlin.models.read import Model, read_model
from padmarlin.models.remedies import Remedy

SCHEMA = "padmarlin.plan/1"
DEFAULT_TP = (1, 2, 4, 8)
_MAX_TP = 1024


@dataclass(frozen=True)
class ModelPlan:
    """What tensor parallelism makes of a model; see `plan_model`."""

    model: Model
    tp: tuple[int, ...]
    cuts: tuple[LayerCut, ...]  # of the quantized layers, layer by layer

    @property
    def unquantized(self) -> tuple[LinearLayer, ...]:
        return tuple(layer for layer, kind in self.model.layers if kind is None)

    @cached_property
    def remedies(self) -> tuple[Remedy, ...]:
        """What can be done, the cheapest first."""
        return advise(self.model, self.tp, self.cuts)

    def failures(self, engine: str) -> tuple[LayerCut, ...]:
        """The cuts that `engine` refuses, gets wrong, or is not known to take."""
        check_choice("failures", "engine", engine, tuple(ENGINES))
        return tuple(cut for cut in self.cuts if not cut.works(engine))

    def works(self, engine: str, tp: int) -> bool:
        return not any(cut.tp == tp for cut in self.failures(engine))

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values; docs/cli-plan.md describes them."""
        common = self.model.scheme.common
        return {
            "schema": SCHEMA,
            "model": {
                "path": self.model.path,
                "architecture": self.model.architecture,
                "known": self.model.known,
                "hidden_size": self.model.hidden_size,
            },
            "quantization": asdict(common),
            "tp": list(self.tp),
            "works": {
                engine: {str(tp): self.works(engine, tp) for tp in self.tp} for engine in ENGINES
            },
            "layers": [self._layer_json(layer, kind) for layer, kind in self.model.layers],
            "remedies": [remedy.to_json() for remedy in self.remedies],
            "notes": list(self.model.notes),
        }

    def _layer_json(self, layer: LinearLayer, kind: Quantization | None) -> dict[str, Any]:
        return {
            "name": layer.pattern,
            "role": layer.role,
            "count": layer.count,
            "k": layer.k,
            "n": layer.n,
            "parts": [{"name": part.name, "n": part.n} for part in layer.parts],
            "axis": layer.axis,
            "quantization": None if kind is None else asdict(kind),
            "cuts": [_cut_json(cut) for cut in self.cuts if cut.layer is layer],
        }


def _cut_json(cut: LayerCut) -> dict[str, Any]:
    def verdict_json(verdict: Verdict) -> dict[str, str]:
        return {
            "outcome": verdict.outcome.value,
            "reason": verdict.reason,
            "versions": verdict.versions,
            "evidence": verdict.evidence.value,
            "source": verdict.source,
        }

    return {
        "tp": cut.tp,
        "k": cut.k,
        "n": cut.n,
        "engines": {name: verdict_json(verdict) for name, verdict in cut.verdicts.items()},
        "padmarlin": None if cut.padmarlin is None else asdict(cut.padmarlin),
        "problem": cut.problem,
    }


def plan_model(
    path: str | os.PathLike[str],
    *,
    tp: Sequence[int] = DEFAULT_TP,
    bits: int | None = None,
    group_size: int | None = None,
    act_order: bool | None = None,
    sym: bool | None = None,
) -> ModelPlan:
    """What tensor parallelism makes of a model's linear layers, before anything is deployed.

    Args:
        path: a checkpoint folder or a bare config.json, quantized or not. Only config.json and
            the headers of safetensors files are read.
        tp: the tensor-parallel sizes to plan for.
        bits, group_size, act_order, sym: instead of what the files say, or where they say nothing:
            then 4 bits, groups of 128, no act-order, symmetric.

    Raises ValueError for a model that cannot be read, TypeError or ValueError for the arguments.
    """
    sizes = _checked_tp(tp)
    if bits is not None:
        check_choice("plan_model", "bits", bits, (4, 8))
    if group_size is not None:
        group_size = check_group_size("plan_model", group_size)
    for name, value in (("act_order", act_order), ("sym", sym)):
        check_choice("plan_model", name, value, (True, False, None))
    model = read_model(path, bits=bits, group_size=group_size, act_order=act_order, sym=sym)
    cuts = tuple(
        plan_layer(layer, kind, size)
        for layer, kind in model.layers
        if kind is not None
        for size in sizes
    )
    return ModelPlan(model, sizes, cuts)


def _checked_tp(tp: Any) -> tuple[int, ...]:
    if isinstance(tp, int):
        tp = (tp,)
    if not isinstance(tp, Sequence) or isinstance(tp, str) or not tp:
        raise TypeError(refusal("plan_model", "tp", repr(tp), "a sequence of integers"))
    sizes = tuple(dict.fromkeys(check_int("plan_model", "tp", size, 1) for size in tp))
    if max(sizes) > _MAX_TP:
        raise ValueError(refusal("plan_model", "tp", max(sizes), f"at most {_MAX_TP}"))
    return sizes
