# SPDX-License-Identifier: Apache-2.0
"""What torch itself has: the unquantized product by cuBLAS, and the int4 kernel in ATen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.method import Operand
from benchmarks.peers.base import Peer, splits_a_group
from benchmarks.weights import Weight


@dataclass
class Dense:
    weight: Tensor  # (k, n)

    def __call__(self, a: Tensor) -> Tensor:
        return a @ self.weight


class Cublas(Peer):
    """The product with dequantized weights. cuBLAS is at its best with the weights of a Linear
    layer, (n, k) in memory."""

    name = "cublas"

    def prepare(self, weight: Weight) -> Operand:
        return Dense(weight.dense().t().contiguous().t())


@dataclass
class Int4:
    packed: Tensor
    group: int
    scales_and_zeros: Tensor

    def __call__(self, a: Tensor) -> Tensor:
        return torch.ops.aten._weight_int4pack_mm(a, self.packed, self.group, self.scales_and_zeros)


class Int4Pack(Peer):
    """ATen's kernel: (q - 8) * s + z with z in the weight's dtype. bfloat16 activations only."""

    name = "int4pack"
    groups = (32, 64, 128, 256)
    inner_k_tiles = (8, 4, 2)  # 16-row tiles that lie together; the largest is the fastest

    def _inner_k_tiles(self, k: int) -> int | None:
        return next((tiles for tiles in self.inner_k_tiles if k % (16 * tiles) == 0), None)

    def refuses(self, case: Case) -> str | None:
        part, coding = case.part, case.coding
        if coding.bits != 4 or coding.dtype != "bfloat16" or coding.act_order:
            return "takes 4 bits, bfloat16, rows in order"
        if part.group not in self.groups:
            return f"takes groups of {', '.join(map(str, self.groups))}"
        if self._inner_k_tiles(part.k) is None or part.n % 8:
            return "takes k in steps of 32 and n in steps of 8"
        return splits_a_group(case)

    def prepare(self, weight: Weight) -> Operand:
        codes = weight.codes().t()  # (n, k)
        # Two codes a byte, the even row of the pair in the upper half.
        pairs = (codes[:, ::2] << 4 | codes[:, 1::2]).contiguous()
        tiles = self._inner_k_tiles(weight.case.part.k)
        packed = torch.ops.aten._convert_weight_to_int4pack(pairs, tiles)
        zeros = torch.zeros_like(weight.scales)
        if weight.zeros is not None:
            zeros = ((8 - weight.zeros.float()) * weight.scales.float()).to(weight.dtype)
        both = torch.stack((weight.scales, zeros), dim=2).contiguous()  # (groups, n, 2)
        return Int4(packed, weight.case.part.group, both)
