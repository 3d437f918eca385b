# SPDX-License-Identifier: Apache-2.0
"""padmarlin itself, and padmarlin with one thing different: what that thing costs.

Each is measured between the others, so that one per cent can be told from a clock that moved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import padmarlin
from benchmarks.cases import Case
from benchmarks.method import Operand
from benchmarks.peers.base import Peer
from benchmarks.weights import Weight

# What kernels of whole tiles want of K and N (Marlin's tiles: 128 x 64 or 64 x 128).
TILE_K, TILE_N = 128, 64


@dataclass
class Gemm:
    weight: padmarlin.PaddedWeight
    batch_invariant: bool = False

    def __call__(self, a: Tensor) -> Tensor:
        return padmarlin.gemm(a, self.weight, batch_invariant=self.batch_invariant)


def whole_tiles(case: Case) -> tuple[int, int, int]:
    """(front, k, n): rows in front down to the group's start, then whole groups and tiles."""
    part = case.part
    step = TILE_K
    while part.group > 0 and step % part.group:
        step += TILE_K
    front = part.k_start % part.group if part.group > 0 else 0
    return front, -(-(front + part.k) // step) * step, -(-part.n // TILE_N) * TILE_N


class Padmarlin(Peer):
    """What all others are held against."""

    name = "padmarlin"

    def prepare(self, weight: Weight) -> Operand:
        return Gemm(weight.repack())


@dataclass
class PaddedGemm:
    weight: padmarlin.PaddedWeight
    front: int
    back: int
    n: int

    def __call__(self, a: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(a, (self.front, self.back))
        return padmarlin.gemm(padded, self.weight)[:, : self.n].contiguous()


class Padded(Peer):
    """What kernels of whole tiles do with ragged shapes: pad A, multiply, slice the result.

    On padmarlin's own kernel, so that only the two copies differ.
    """

    name = "pad+slice"

    def applies(self, case: Case) -> bool:
        return case.part.ragged and not case.coding.act_order

    def prepare(self, weight: Weight) -> Operand:
        part = weight.case.part
        front, k, n = whole_tiles(weight.case)
        padded = weight.padded(front, k, n).repack()
        return PaddedGemm(padded, front, k - front - part.k, part.n)


class Twin(Padmarlin):
    """padmarlin on the case with one property left out; ratio = its time over the case's own."""

    def __init__(self, name: str, change: Callable[[Case], Case]) -> None:
        self.name = name
        self.change = change

    def applies(self, case: Case) -> bool:
        return self.case(case) != case

    def case(self, case: Case) -> Case:
        return self.change(case)


def aligned(case: Case) -> Case:
    """Whole tiles and groups from the matrix's first row: what a model made for them would have.
    With act-order a cut costs rows whatever its size: no twin."""
    part = case.part
    if not part.ragged or case.coding.act_order:
        return case
    _, k, n = whole_tiles(replace(case, part=replace(part, k_start=0)))
    return replace(case, part=replace(part, k=k, n=n, k_start=0))


def in_order(case: Case) -> Case:
    return replace(case, coding=replace(case.coding, act_order=False))


def symmetric(case: Case) -> Case:
    return replace(case, coding=replace(case.coding, symmetric=True))


def in_fp16(case: Case) -> Case:
    return replace(case, coding=replace(case.coding, dtype="float16"))


class BatchInvariant(Peer):
    """The price of results that do not depend on the other rows."""

    name = "batch_invariant"

    def prepare(self, weight: Weight) -> Operand:
        return Gemm(weight.repack(), batch_invariant=True)


TWINS = (
    Twin("aligned", aligned),
    Twin("in-order", in_order),
    Twin("symmetric", symmetric),
    Twin("fp16", in_fp16),
)
