# SPDX-License-Identifier: Apache-2.0
"""The operator's call with a repacked weight whose tensors are a layer's parameters."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from padmarlin.integrations.vllm.parameters import repacked_parameter
from padmarlin.weight import PaddedWeight

TENSORS = ("qweight", "scales", "zeros", "slice_rows", "columns")
"""The tensors of a repacked weight."""


@dataclass(frozen=True)
class Product:
    """One call of the operator. Its tensors are parameters of the layer, their names end in
    `suffix`, so that they move, and are captured and compiled, as any others."""

    suffix: str
    k: int
    n: int
    bits: int
    front_pad: int
    dequant: int

    @classmethod
    def of(cls, weight: PaddedWeight, suffix: str) -> Product:
        dequant = int(weight.dequant)
        return cls(suffix, weight.k, weight.n, weight.bits, weight.front_pad, dequant)

    def register(self, layer: Module, weight: PaddedWeight, name: str) -> None:
        for kind in TENSORS:
            tensor = getattr(weight, kind)
            kept = None if tensor is None else repacked_parameter(tensor, name)
            layer.register_parameter(kind + self.suffix, kept)

    def __call__(
        self, layer: Module, rows: Tensor, bias: Tensor | None, batch_invariant: bool
    ) -> Tensor:
        return torch.ops.padmarlin.gemm(
            rows,
            getattr(layer, "qweight" + self.suffix),
            getattr(layer, "scales" + self.suffix),
            getattr(layer, "zeros" + self.suffix),
            getattr(layer, "slice_rows" + self.suffix),
            getattr(layer, "columns" + self.suffix),
            bias,
            self.k,
            self.n,
            self.bits,
            self.front_pad,
            self.dequant,
            batch_invariant,
        )


def structure_of(
    products: tuple[Product, ...], weights: list[PaddedWeight]
) -> list[dict[str, int | str]]:
    """What graphs that call the products take for constant; the values of tensors are not."""
    return [
        {**asdict(product), **{kind: _form(getattr(weight, kind)) for kind in TENSORS}}
        for product, weight in zip(products, weights, strict=True)
    ]


def _form(tensor: Tensor | None) -> str:
    return "none" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"


def differences(new: list[dict[str, Any]], old: list[dict[str, Any]]) -> tuple[str, str]:
    """In what two structures differ: (the new one's, the old one's), in words."""
    if len(new) != len(old):
        return f"{len(new)} products", f"{len(old)}, as at first"
    pairs = list(zip(new, old, strict=True))
    keys = [key for key in old[0] if any(a[key] != b[key] for a, b in pairs)]
    got, expected = (
        "; ".join(f"{key} {[part[key] for part in parts]}" for key in keys) for parts in (new, old)
    )
    return got, f"{expected}, as at first"
