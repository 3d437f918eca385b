# SPDX-License-Identifier: Apache-2.0
"""The bias of a quantized layer: a plain tensor beside its weight."""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor

from padmarlin.checkpoint.part import SCALES
from padmarlin.checkpoint.reader import CheckpointReader
from padmarlin.checkpoint.refuse import refuse
from padmarlin.checkpoint.repacked import Repacked
from padmarlin.checkpoint.tensors import StoredTensor
from padmarlin.partition import Shard
from padmarlin.weight import PaddedWeight


def load_bias(
    checkpoint_dir: str | os.PathLike[str],
    name: str,
    weight: PaddedWeight,
    *,
    shard: Shard | None = None,
) -> Tensor | None:
    """The bias of the layer `name` for `weight`, the part that `shard` says; None: it has none.

    It gets the weight's dtype and device. A cut along K leaves it whole.
    """
    directory = Path(os.fsdecode(checkpoint_dir))
    full_name = f"{name}.bias"
    repacked = Repacked.read(directory)
    if repacked is not None:
        if full_name not in repacked.others:
            return None
        with repacked.stored(full_name) as stored:
            return _read(stored, weight, shard)
    reader = CheckpointReader(directory)
    if full_name not in reader:
        return None
    try:
        return _read(reader.stored(full_name), weight, shard)
    finally:
        reader.release()


def _read(stored: StoredTensor, weight: PaddedWeight, shard: Shard | None) -> Tensor:
    parts = shard.world_size if shard is not None and shard.axis == "n" else 1
    n = weight.n * parts
    stored.check(SCALES, (n,), f"(n,), as the layer has {n} columns")
    start = 0 if shard is None or parts == 1 else shard.rank * weight.n
    return fitted_bias(stored.name, stored.read((start, start + weight.n)), weight, start)


def fitted_bias(name: str, stored: Tensor, weight: PaddedWeight, first_column: int = 0) -> Tensor:
    """The tensor `name`, whose first column is that of the layer, in the weight's dtype and on its
    device. Refuses numbers that the dtype cannot hold."""
    bias = stored.to(weight.dtype)
    lost = (stored.isfinite() & ~bias.isfinite()).nonzero()
    if lost.numel():
        column = int(lost[0])
        got = f"{float(stored[column]):g} at column {first_column + column}"
        remedy = "pass dtype=torch.bfloat16, of wider range"
        refuse(f"tensor {name!r}", got, f"what {weight.dtype} can hold", remedy)
    return bias.to(weight.device)
