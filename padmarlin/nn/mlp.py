# SPDX-License-Identifier: Apache-2.0
"""``QuantMLP``: gate, up and down of a gated MLP, with act-order folded away between them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from padmarlin.errors import refusal
from padmarlin.nn.fold import load_folded_pair
from padmarlin.nn.merged import MergedColumnParallelQuantLinear, checked_names
from padmarlin.nn.parallel import RowParallelQuantLinear


class QuantMLP(nn.Module):
    """``down(activation(gate(x)) * up(x))``.

    Args:
        gate_up: the two matrices, gate first. down: the third, made with them.
        activation: a function of single elements.
    """

    def __init__(
        self,
        gate_up: MergedColumnParallelQuantLinear,
        down: RowParallelQuantLinear,
        *,
        activation: Callable[[Tensor], Tensor] = silu,
    ) -> None:
        super().__init__()
        self.gate_up, self.down, self.activation = gate_up, down, activation

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint_dir: str | os.PathLike[str],
        prefix: str,
        *,
        names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
        activation: Callable[[Tensor], Tensor] = silu,
        **arguments: Any,
    ) -> QuantMLP:
        """The MLP `prefix`, e.g. "model.layers.0.mlp"; `arguments` are ``load_folded_pair``'s."""
        checked = checked_names(cls.__name__, names)
        if len(checked) != 3:
            expected = "the names of gate, up and down"
            raise ValueError(refusal(cls.__name__, "names", repr(names), expected))
        gate, up, down = (f"{prefix}.{name}" for name in checked)
        pair = load_folded_pair(checkpoint_dir, [gate, up], down, **arguments)
        return cls(*pair, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = torch.split(self.gate_up(x), self.gate_up.split_sizes, dim=-1)
        return self.down(self.activation(gate) * up)
