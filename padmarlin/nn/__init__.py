# SPDX-License-Identifier: Apache-2.0
"""Layers for inference code of one's own: ``torch.nn.Module`` around a ``PaddedWeight``, whole or
cut over the ranks of a ``torch.distributed`` group as Megatron cuts (``docs/tensor-parallel.md``).
"""

from padmarlin.nn.fold import load_folded_pair
from padmarlin.nn.linear import QuantLinear
from padmarlin.nn.merged import MergedColumnParallelQuantLinear
from padmarlin.nn.mlp import QuantMLP
from padmarlin.nn.parallel import ColumnParallelQuantLinear, RowParallelQuantLinear

__all__ = [
    "ColumnParallelQuantLinear",
    "MergedColumnParallelQuantLinear",
    "QuantLinear",
    "QuantMLP",
    "RowParallelQuantLinear",
    "load_folded_pair",
]
