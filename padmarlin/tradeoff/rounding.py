# SPDX-License-Identifier: Apache-2.0
"""The error of rounding weights to the nearest code: symmetric, one scale per group of a column.

The grid is that of GPTQ and compressed-tensors: codes -2^(b-1) to 2^(b-1) - 1, and a scale of
2 max|w| / (2^b - 1): the largest weight lies half a step from the grid's end. Scales are not
rounded to 16 bits, which in fp16 changes the error by less than 1 % of itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from padmarlin.tradeoff.table import Choice

_TINY = torch.finfo(torch.float32).tiny


def squared_error(weights: Tensor, choice: Choice) -> float:
    """The sum of squared errors of (columns, k) fp32 weights: a checkpoint's layout, groups along
    the second axis."""
    columns, k = weights.shape
    size = k if choice.group_size == -1 else min(choice.group_size, k)
    # Zeros fill the last group up: they change no maximum and have no error.
    groups = torch.nn.functional.pad(weights, (0, -k % size)).view(columns, -1, size)
    scales = groups.abs().amax(dim=2, keepdim=True) * (2 / (2**choice.bits - 1))
    # A group of zeros has the scale 0, and the codes 0 with any other divisor.
    codes = (groups / scales.clamp(min=_TINY)).round_()
    codes.clamp_(-(2 ** (choice.bits - 1)), 2 ** (choice.bits - 1) - 1)
    return float(torch.addcmul(groups, codes, scales, value=-1).double().square_().sum())


@dataclass
class Sums:
    """Sums of squares over the matrices of a layer, each sample weighted by how much it stands
    for."""

    norm: float = 0.0
    errors: dict[Choice, float] = field(default_factory=dict)

    def add(self, weights: Tensor, choices: Sequence[Choice], stands_for: float = 1.0) -> None:
        self.norm += stands_for * float(weights.double().square_().sum())
        for choice in choices:
            error = stands_for * squared_error(weights, choice)
            self.errors[choice] = self.errors.get(choice, 0.0) + error

    def include(self, other: Sums, times: float = 1.0) -> None:
        """Adds the sums of another layer, of which there are `times`."""
        self.norm += times * other.norm
        for choice, error in other.errors.items():
            self.errors[choice] = self.errors.get(choice, 0.0) + times * error

    def relative(self, choice: Choice) -> float:
        """The relative Frobenius error: ||W - Q(W)|| / ||W||; 0 for weights that are all 0."""
        return math.sqrt(self.errors[choice] / self.norm) if self.norm else 0.0
