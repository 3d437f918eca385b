# SPDX-License-Identifier: Apache-2.0
"""padmarlin: 4- and 8-bit weights of any shape and any tensor-parallel cut, exact and fast.

Importing it needs no GPU, initialises no CUDA, and works without the compiled extension.
"""

from padmarlin import nn
from padmarlin.checkpoint import load_weight
from padmarlin.formats import repack_awq, repack_compressed_tensors, repack_gptq
from padmarlin.functional import dequantize, gemm
from padmarlin.layout import FORMAT_VERSION
from padmarlin.partition import Shard
from padmarlin.plan import Plan, plan
from padmarlin.weight import PaddedWeight

__version__ = "0.1.0.dev0"

__all__ = [
    "FORMAT_VERSION",
    "PaddedWeight",
    "Plan",
    "Shard",
    "dequantize",
    "gemm",
    "load_weight",
    "nn",
    "plan",
    "repack_awq",
    "repack_compressed_tensors",
    "repack_gptq",
]
