# SPDX-License-Identifier: Apache-2.0
"""Random checkpoints of one layer, and the answer by tests/oracle.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.integrations.vllm_layers.layers import Case
from tests.oracle import Gptq, Layer, random_awq, random_compressed_tensors, random_gptq

ROWS = 5


def gptq(
    seed: int, kind: str, k: int, *n: int, dtype: torch.dtype = torch.float16, **options: Any
) -> tuple[Case, list[Layer]]:
    rng = np.random.default_rng(seed)
    first = random_gptq(rng, k, n[0], **options)
    # Matrices that engines fuse have their rows in the same order.
    layers = [
        first,
        *(replace(random_gptq(rng, k, c, **options), g_idx=first.g_idx) for c in n[1:]),
    ]
    return case_of(rng, kind, layers, gptq_settings(first, **options), dtype), list(layers)


def gptq_settings(layer: Gptq, symmetric: bool = True, **_: Any) -> dict[str, Any]:
    return {
        "quant_method": "gptq",
        "bits": layer.bits,
        "group_size": layer.group_size,
        "desc_act": layer.g_idx is not None,
        "sym": symmetric,
        "checkpoint_format": layer.checkpoint_format,
        "lm_head": True,
    }


def awq(
    seed: int, kind: str, k: int, *n: int, group_size: int = 128, symmetric: bool = False
) -> tuple[Case, list[Layer]]:
    rng = np.random.default_rng(seed)
    layers = [random_awq(rng, k, c, group_size=group_size, symmetric=symmetric) for c in n]
    settings = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": group_size,
        "zero_point": not symmetric,
        "version": "gemm",
        "lm_head": True,
    }
    return case_of(rng, kind, layers, settings), list(layers)


def compressed_tensors(
    seed: int, kind: str, k: int, *n: int, **options: Any
) -> tuple[Case, list[Layer]]:
    rng = np.random.default_rng(seed)
    first = random_compressed_tensors(rng, k, n[0], **options)
    others = (random_compressed_tensors(rng, k, c, **options) for c in n[1:])
    layers = [first, *(replace(other, weight_g_idx=first.weight_g_idx) for other in others)]
    weights = {
        "num_bits": first.bits,
        "type": "int",
        "symmetric": first.weight_zero_point is None,
        "strategy": "channel" if first.group_size == -1 else "group",
        "group_size": None if first.group_size == -1 else first.group_size,
        "actorder": "group" if first.weight_g_idx is not None else None,
        "dynamic": False,
    }
    settings = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {
            "group_0": {
                "format": "pack-quantized",
                "targets": ["Linear"],
                "weights": weights,
                "input_activations": None,
                "output_activations": None,
            }
        },
        "ignore": [],
    }
    return case_of(rng, kind, layers, settings), list(layers)


def case_of(
    rng: np.random.Generator,
    kind: str,
    layers: Sequence[Layer],
    settings: dict[str, Any],
    dtype: torch.dtype = torch.float16,
) -> Case:
    x = torch.from_numpy(rng.normal(size=(ROWS, layers[0].k))).to(dtype)
    return Case(
        kind=kind,
        k=layers[0].k,
        n=tuple(layer.n for layer in layers),
        settings=settings,
        tensors=tuple(layer.tensors() for layer in layers),
        x=x,
    )


def expected(case: Case, layers: Sequence[Layer]) -> list[Tensor]:
    """What each of the fused matrices makes of x, float64; the bias is not added."""
    x = case.x.double()
    return [x @ layer.dequantized(case.x.dtype).double() for layer in layers]


def of_rank(case: Case, whole: Sequence[Tensor], rank: int, tp: int) -> Tensor:
    """The columns that a rank of `tp` answers with."""
    if case.kind in ("row", "replicated"):
        return whole[0]
    if case.kind == "lm_head":
        # vLLM pads the vocabulary to a multiple of 64 and gives each rank an equal part.
        padded = torch.nn.functional.pad(whole[0], (0, -whole[0].shape[1] % 64))
        return padded.chunk(tp, -1)[rank]
    parts = []
    for y, heads in zip(whole, _units(case), strict=True):
        # Fewer KV heads than ranks: neighbouring ranks hold the same one.
        ranks = min(tp, heads)
        parts.append(y.chunk(ranks, -1)[rank * ranks // tp])
    return torch.cat(parts, -1)


def _units(case: Case) -> list[int]:
    """Into how many parts each matrix can be cut; heads, or single columns."""
    return [n // 64 for n in case.n] if case.kind == "qkv" else list(case.n)


def assert_close(got: Tensor, wanted: Tensor, what: str) -> None:
    """Within what fp16 rounding of the output, and of each rank's part, allows: a wrong scale row
    is off by a hundred times as much."""
    assert got.shape == wanted.shape, f"{what}: shape {tuple(got.shape)}, not {tuple(wanted.shape)}"
    eps = torch.finfo(got.dtype).eps
    error = (got.double() - wanted).abs() / wanted.abs().max()
    worst = float(error.max())
    at = tuple(int(i) for i in (error == error.max()).nonzero()[0])
    assert worst <= 2 * eps, f"{what}: relative error {worst:.2e} at {at}, at most {2 * eps:.1e}"
