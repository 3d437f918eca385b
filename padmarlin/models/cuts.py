# SPDX-License-Identifier: Apache-2.0
"""One linear layer at one tensor-parallel size: what engines do with it, what padmarlin does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from padmarlin.engines import ENGINES, Cut, Evidence, Outcome, Verdict, judge
from padmarlin.models.layers import LinearLayer
from padmarlin.models.quantization import Quantization
from padmarlin.plan import Plan, plan


@dataclass(frozen=True)
class Padding:
    """What padmarlin stores of a layer on a rank."""

    padded_k: int  # the largest of the ranks'
    padded_n: int
    overhead: float  # weights stored on all ranks beyond those there are, as a fraction
    straddles: bool  # ranks share quantization groups
    exact: bool  # False: sizes are upper bounds, for act-order cut along K


@dataclass(frozen=True)
class LayerCut:
    """A layer, or several equal ones, at one tensor-parallel size."""

    layer: LinearLayer
    quantization: Quantization
    tp: int
    k: int  # rows of a rank; 0: the layer cannot be cut so
    n: int  # columns of a rank
    verdicts: dict[str, Verdict]  # by engine
    padmarlin: Padding | None  # None: the layer cannot be cut so
    problem: str  # why it cannot be cut, by anyone

    def works(self, engine: str) -> bool:
        return self.verdicts[engine].works

    @property
    def cut(self) -> Cut:
        return _cut(self.layer, self.quantization, self.tp)


def plan_layer(layer: LinearLayer, quantization: Quantization, tp: int) -> LayerCut:
    """One layer at one tensor-parallel size."""
    problem = _problem(layer, tp)
    if problem:
        verdicts = {
            name: Verdict(
                name, Outcome.REFUSE, problem, "all", Evidence.DERIVED, "", "not divisible"
            )
            for name in ENGINES
        }
        return LayerCut(layer, quantization, tp, 0, 0, verdicts, None, problem)
    cut = _cut(layer, quantization, tp)
    return LayerCut(
        layer,
        quantization,
        tp,
        cut.k,
        cut.n,
        {name: judge(name, cut) for name in ENGINES},
        _padding(layer, quantization, cut),
        "",
    )


def _problem(layer: LinearLayer, tp: int) -> str:
    if not layer.k_per_rank(tp):
        heads = f" = {layer.k // layer.k_unit} heads" if layer.k_unit > 1 else ""
        return f"{tp} ranks cannot share K = {layer.k}{heads} equally"
    for part, columns in zip(layer.parts, layer.n_per_rank(tp), strict=True):
        if not columns:
            heads = f" = {part.n // part.unit} heads" if part.unit > 1 else ""
            return f"{tp} ranks cannot share the {part.n} columns{heads} of {part.name} equally"
    return ""


def _cut(layer: LinearLayer, quantization: Quantization, tp: int) -> Cut:
    return Cut(
        k=layer.k_per_rank(tp),
        n_parts=layer.n_per_rank(tp),
        full_k=layer.k,
        bits=quantization.bits,
        group_size=quantization.group_size,
        act_order=quantization.act_order,
        sym=quantization.sym,
        method=quantization.method,
        tp=tp,
        axis=layer.axis,
        experts=layer.experts > 0,
    )


def _padding(layer: LinearLayer, quantization: Quantization, cut: Cut) -> Padding:
    ranks = cut.tp if layer.axis == "k" else 1  # else every rank has all rows, and K is not cut
    planned = _planned(
        layer.k, cut.n, quantization.bits, quantization.group_size, quantization.act_order, ranks
    )
    return Padding(
        max(rank.padded_k for rank in planned.ranks),
        planned.ranks[0].padded_n,
        planned.overhead,
        any(rank.straddles for rank in planned.ranks),
        planned.exact,
    )


@lru_cache(maxsize=1024)
def _planned(k: int, n: int, bits: int, group_size: int, act_order: bool, tp: int) -> Plan:
    return plan(k, n, bits=bits, group_size=group_size, act_order=act_order, tp=tp, axis="k")
