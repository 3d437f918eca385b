# SPDX-License-Identifier: Apache-2.0
"""Load one rank's part of a quantized layer and multiply by it."""

from pathlib import Path

import torch

import padmarlin

checkpoint = Path(__file__).parent.parent / "tests" / "checkpoints" / "gptq4_g128_sym_i384"
layer = "model.layers.0.mlp.down_proj"

print(padmarlin.plan(k=384, n=256, group_size=128, tp=2))  # what each rank is padded to

x = torch.randn(3, 384, dtype=torch.float16)
partial_sums = []
for rank in range(2):
    shard = padmarlin.Shard("k", rank, world_size=2)  # row-parallel: half of the 384 rows
    weight = padmarlin.load_weight(checkpoint, layer, shard=shard)
    start, stop = shard.bounds(384)
    partial_sums.append(padmarlin.gemm(x[:, start:stop], weight))  # engines all-reduce these

whole = padmarlin.dequantize(padmarlin.load_weight(checkpoint, layer))
y, expected = sum(partial_sums).double(), x.double() @ whole.double()
print(f"relative error {float((y - expected).norm() / expected.norm()):.1e}")
