# SPDX-License-Identifier: Apache-2.0
"""GPTQModel's Marlin (7.x): a copy of vLLM's, compiled at first use; it pads and slices too."""

from __future__ import annotations

import torch

from benchmarks.cases import Case
from benchmarks.method import Operand
from benchmarks.peers.base import Peer, missing_module, splits_a_group
from benchmarks.weights import Weight

MODULE = "gptqmodel.nn_modules.qlinear.marlin"


class GptqModelMarlin(Peer):
    name = "gptqmodel-marlin"

    def missing(self) -> str | None:
        return missing_module(MODULE, "pip install gptqmodel")

    def refuses(self, case: Case) -> str | None:
        part, coding = case.part, case.coding
        if not coding.symmetric:
            return "takes no zero points"
        if part.group not in (-1, 32, 64, 128):
            return "takes groups of 32, 64, 128 or one"
        per_word = 32 // coding.bits
        if part.k % per_word or part.n % per_word:
            return f"takes k and n in whole words of {per_word}"
        if coding.act_order and part.tp > 1 and part.layer.axis == "k":
            return "takes act-order in whole matrices only"
        if coding.act_order and part.ragged:
            return "takes act-order in whole tiles only"
        return splits_a_group(case)

    def prepare(self, weight: Weight) -> Operand:
        from gptqmodel.nn_modules.qlinear.marlin import MarlinLinear

        part, coding = weight.case.part, weight.case.coding
        layer = MarlinLinear(
            bits=coding.bits,
            group_size=part.group,
            desc_act=coding.act_order,
            sym=True,
            in_features=part.k,
            out_features=part.n,
            bias=False,
            dtype=weight.dtype,
        ).to(weight.scales.device)
        layer.qweight.data = weight.qweight.clone()
        layer.scales.data = weight.scales.clone()
        groups = weight.row_groups() if weight.g_idx is None else weight.g_idx
        layer.g_idx.data = groups.to(torch.int32)
        layer.post_init()
        return layer.eval()
