# SPDX-License-Identifier: Apache-2.0
"""What people try when an engine refuses a cut: each with whether it helps here, and why not.

The options are vLLM's, so it is vLLM that is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from padmarlin.engines import judge
from padmarlin.models.cuts import LayerCut, plan_layer
from padmarlin.models.read import Model
from padmarlin.models.remedies import Remedy, listed

TP_TRIED = (1, 2, 3, 4, 5, 6, 7, 8, 16)
"""The tensor-parallel sizes that people use."""

_ENGINE = "vllm"


@dataclass(frozen=True)
class _Case:
    """What the pieces of folklore are asked about."""

    model: Model
    troubles: list[LayerCut]
    smaller_tp: tuple[int, ...]  # below the largest planned, at which every layer works

    @property
    def group_trouble(self) -> str:
        """A cut inside a group, else a short last group, in words; empty: there is none."""
        split = [cut.cut for cut in self.troubles if not cut.cut.whole_groups]
        cut = next((cut for cut in split if cut.straddles), split[0] if split else None)
        return "" if cut is None else f"{cut.k} rows are {cut.groups} groups of {cut.group_size}"

    @property
    def only_tiles(self) -> bool:
        """Neither groups nor settings are amiss, only sizes."""
        settings = any(cut.cut.reorders or not cut.quantization.sym for cut in self.troubles)
        return not self.group_trouble and not settings


def folklore(model: Model, troubles: list[LayerCut]) -> tuple[Remedy, ...]:
    """Every piece of folklore that bears on the troubles."""
    largest = max(cut.tp for cut in troubles)
    smaller = tuple(tp for tp in working_tp(model, _ENGINE) if tp < largest)
    case = _Case(model, troubles, smaller)
    return tuple(remedy for piece in _PIECES if (remedy := piece(case)) is not None)


def working_tp(model: Model, engine: str) -> tuple[int, ...]:
    """Of the usual tensor-parallel sizes, those at which `engine` takes every quantized layer."""
    quantized = [(layer, kind) for layer, kind in model.layers if kind is not None]
    return tuple(
        tp
        for tp in TP_TRIED
        if all(plan_layer(layer, kind, tp).works(engine) for layer, kind in quantized)
    )


def _piece(title: str, helps: bool, text: str, tp: tuple[int, ...] = ()) -> Remedy:
    return Remedy("folklore", title, helps, text, tp)


def _quantization_option(case: _Case) -> Remedy:
    text = "gptq, gptq_marlin and auto_gptq are one and the same since vLLM 0.22.1; the cut stays"
    if case.model.scheme.common.method != "gptq":
        text = "the files are not GPTQ"
    return _piece("--quantization gptq", False, text)


def _smaller_tp(case: _Case) -> Remedy:
    sizes = case.smaller_tp
    text = f"vLLM takes every layer at TP {listed(sizes)}, if the model fits into so few GPUs"
    if not sizes:
        text = "vLLM does not take every layer at any smaller size"
    return _piece("a smaller tensor-parallel size", bool(sizes), text, sizes)


def _pipeline(case: _Case) -> Remedy:
    helps = 1 in case.smaller_tp
    text = "no matrix is cut; GPUs take turns, so a single request gains no speed"
    if not helps:
        text = "vLLM does not take every layer even uncut"
    return _piece("pipeline parallelism instead", helps, text)


def _enforce_eager(case: _Case) -> Remedy:
    text = "it turns off CUDA graphs; the cut is made and checked when weights are loaded"
    return _piece("--enforce-eager", False, text)


def _int8(case: _Case) -> Remedy:
    failing = [cut.cut for cut in case.troubles if not cut.works(_ENGINE)]
    eight = [judge(_ENGINE, replace(cut, bits=8)) for cut in failing]
    helps = bool(eight) and all(verdict.works for verdict in eight)
    if helps:
        text = "vLLM takes the layers with 8 bits"
    elif case.group_trouble:
        text = f"{case.group_trouble}, whatever the bits"
    else:
        text = "the reason is not the bits"
    return _piece("INT8 instead of INT4", helps, text)


def _pad_ranks(case: _Case) -> Remedy:
    if case.only_tiles:
        text = "vLLM does so itself since 0.24.0, copying activations and outputs at every call"
    elif case.group_trouble:
        text = f"{case.group_trouble}: zeros after a cut leave its group cut; pad, then cut"
    else:
        text = "the reason is not the size"
    return _piece("pad each rank to a multiple of 128", case.only_tiles, text)


def _truncate(case: _Case) -> Remedy | None:
    if not case.group_trouble:
        return None
    text = "it throws weights away: what is left is another model"
    return _piece("cut the surplus rows off", False, text)


_PIECES: tuple[Callable[[_Case], Remedy | None], ...] = (
    _quantization_option,
    _smaller_tp,
    _pipeline,
    _enforce_eager,
    _int8,
    _pad_ranks,
    _truncate,
)
