# SPDX-License-Identifier: Apache-2.0
"""What a format's reader gets."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from padmarlin.checkpoint.refuse import refuse
from padmarlin.checkpoint.scheme import Scheme
from padmarlin.checkpoint.tensors import Range, StoredTensor, TensorFiles
from padmarlin.partition import Shard


@dataclass(frozen=True)
class Request:
    """A layer, how it is quantized, and what to make of it."""

    files: TensorFiles
    name: str
    scheme: Scheme
    shard: Shard | None
    device: torch.device
    dtype: torch.dtype | None

    def has(self, suffix: str) -> bool:
        return f"{self.name}.{suffix}" in self.files

    def tensor(self, suffix: str) -> StoredTensor:
        return self.files[f"{self.name}.{suffix}"]

    def check_quantized(self, codes: str) -> None:
        """Refuses a layer that has a plain weight and not the tensor `codes`."""
        if self.has("weight") and not self.has(codes):
            remedy = f"use the tensor {self.name}.weight as it is"
            got = f"{self.name!r}, which is not quantized"
            refuse("name", got, "a quantized layer", remedy)

    def bounds(self, axis: str, size: int) -> Range:
        """The rank's range along an axis: all of it unless the shard cuts that axis."""
        if self.shard is None or self.shard.axis != axis:
            return 0, size
        return self.shard.bounds(size)
