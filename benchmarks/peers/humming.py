# SPDX-License-Identifier: Apache-2.0
"""humming-kernels: compiled at first use for each shape. A wheel of 0.6 MB that can travel."""

from __future__ import annotations

from benchmarks.cases import Case
from benchmarks.method import Operand
from benchmarks.peers.base import Peer, missing_module, splits_a_group
from benchmarks.weights import Weight

# What vLLM pads its humming layers to: N by the largest tile, K by the smallest group of tiles.
PAD_N, PAD_K = 256, 128


class Humming(Peer):
    name = "humming"

    def missing(self) -> str | None:
        return missing_module("humming.layer", "pip install humming-kernels (docs/benchmarks.md)")

    def refuses(self, case: Case) -> str | None:
        if case.coding.act_order:
            return "has no act-order"
        if case.part.n % 8 or case.part.k % 8:
            return "takes k and n in steps of 8"
        if case.part.group == -1:
            return "its GPTQ form has no single group"
        return splits_a_group(case)

    def prepare(self, weight: Weight) -> Operand:
        from humming.layer import HummingLayer

        part, coding = weight.case.part, weight.case.coding
        layer = HummingLayer(
            shape_n=part.n,
            shape_k=part.k,
            weight_config={
                "quant_method": "gptq",
                "bits": coding.bits,
                "group_size": part.group,
                "desc_act": False,
                "sym": coding.symmetric,
            },
            pad_n_to_multiple=PAD_N,
            pad_k_to_multiple=PAD_K,
            torch_dtype=weight.dtype,
        ).cuda()
        tensors = {"qweight": weight.qweight, "scales": weight.scales}
        if weight.zeros is not None:
            # In its GPTQ form the zero points lie as they are, along n.
            tensors["qzeros"] = weight.packed_zeros()
        layer.load_from_tensors(tensors)
        layer.transform()
        return layer
