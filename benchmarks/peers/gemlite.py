# SPDX-License-Identifier: Apache-2.0
"""gemlite: Triton kernels, tuned at first use for each shape."""

from __future__ import annotations

import torch

from benchmarks.cases import Case
from benchmarks.method import Operand
from benchmarks.peers.base import Peer, missing_module, splits_a_group
from benchmarks.weights import Weight


class Gemlite(Peer):
    name = "gemlite"

    def missing(self) -> str | None:
        return missing_module("gemlite.helper", "pip install gemlite (docs/benchmarks.md)")

    def refuses(self, case: Case) -> str | None:
        if case.coding.act_order:
            return "has no act-order"
        if case.part.k % 32 or case.part.n % 32:
            return "takes k and n in steps of 32"
        if 0 < case.part.group < 16:
            return "takes groups of 16 and more"
        return splits_a_group(case)

    def prepare(self, weight: Weight) -> Operand:
        from gemlite.helper import A16Wn

        part, bits = weight.case.part, weight.case.coding.bits
        scales = weight.scales.t().contiguous()  # (n, groups)
        zeros = torch.full_like(scales, 2 ** (bits - 1))
        if weight.zeros is not None:
            zeros = weight.zeros.t().contiguous().to(weight.dtype)
        return A16Wn(device=str(scales.device), dtype=weight.dtype).from_weights(
            weight.codes().t().contiguous(),
            scales,
            zeros,
            bits,
            part.k if part.group == -1 else part.group,
        )
