# SPDX-License-Identifier: Apache-2.0
"""Megatron's pair of layers: one cut along its columns, whose results stand side by side, and one
cut along its rows, whose results add up."""

from __future__ import annotations

import copy
import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from padmarlin.checkpoint import load_weight
from padmarlin.checkpoint.bias import load_bias
from padmarlin.nn.group import all_gather, all_reduce, rank_and_size
from padmarlin.nn.linear import QuantLinear
from padmarlin.partition import Shard
from padmarlin.weight import PaddedWeight


class ParallelQuantLinear(QuantLinear):
    """What the parallel layers share: the group, and this process's place in it.

    ``rank`` and ``world_size`` are counted inside the group. They are fixed when the layer is made,
    as its part of the weight is.
    """

    def __init__(
        self,
        weight: PaddedWeight,
        bias: Tensor | None,
        process_group: dist.ProcessGroup | None,
        batch_invariant: bool,
    ) -> None:
        super().__init__(weight, bias, batch_invariant=batch_invariant)
        self.process_group = process_group
        self.rank, self.world_size = rank_and_size(type(self).__name__, process_group)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank {self.rank} of {self.world_size}"

    def _check_flag(self, argument: str, value: Any) -> bool:
        if not isinstance(value, bool):
            self._refuse(TypeError, argument, repr(value), "a bool")
        return bool(value)

    def __deepcopy__(self, memo: dict[int, Any]) -> ParallelQuantLinear:
        """A copy is of the same group."""
        memo[id(self.process_group)] = self.process_group
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def __getstate__(self) -> dict[str, Any]:
        if self.process_group is not None:
            expected = "the default group (None): another group exists in this process only"
            remedy = "save state_dict() instead, and build the layer with its group again"
            self._refuse(TypeError, "process_group", "a layer to pickle", expected, remedy)
        return self.__dict__


class ColumnParallelQuantLinear(ParallelQuantLinear):
    """Each rank has n / world_size columns, and their part of the bias.

    Args:
        weight, bias: this rank's part.
        gather_output: return all columns on every rank, instead of the rank's own.
        process_group: None: the default group; one rank if there is none.
        batch_invariant: as for ``QuantLinear``.
    """

    def __init__(
        self,
        weight: PaddedWeight,
        bias: Tensor | None = None,
        *,
        gather_output: bool = False,
        process_group: dist.ProcessGroup | None = None,
        batch_invariant: bool = False,
    ) -> None:
        super().__init__(weight, bias, process_group, batch_invariant)
        self.gather_output = self._check_flag("gather_output", gather_output)
        self.out_features = self.n * self.world_size

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint_dir: str | os.PathLike[str],
        name: str,
        *,
        gather_output: bool = False,
        process_group: dist.ProcessGroup | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        batch_invariant: bool = False,
    ) -> ColumnParallelQuantLinear:
        """Reads this rank's columns of the layer `name`, and of its bias if it has one."""
        shard = shard_of(cls, "n", process_group)
        weight = load_weight(checkpoint_dir, name, shard=shard, device=device, dtype=dtype)
        return cls(
            weight,
            load_bias(checkpoint_dir, name, weight, shard=shard),
            gather_output=gather_output,
            process_group=process_group,
            batch_invariant=batch_invariant,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., k) -> (..., n of this rank), or with ``gather_output`` (..., out_features)."""
        y = self._multiply(x, self.bias)
        if not self.gather_output or self.world_size == 1:
            return y
        return self._in_order(all_gather(y, self.world_size, self.process_group))

    def _in_order(self, parts: Tensor) -> Tensor:
        """(world_size, ..., n), the ranks' results, to (..., out_features)."""
        return parts.movedim(0, -2).flatten(-2)


class RowParallelQuantLinear(ParallelQuantLinear):
    """Each rank has k / world_size rows; the results of all ranks add up.

    The bias is added once: rank 0 of the group adds it to its part before the sum, in fp32. So with
    ``reduce_results=False`` the results still add up to the layer's, bias included.

    Args:
        weight: this rank's part. bias: all of it, on every rank (only rank 0's is used).
        input_is_parallel: x holds the rank's own columns; False: all of them, and it takes its own.
        reduce_results: return the sum on every rank; False: the rank's part of the sum.
        process_group: None: the default group; one rank if there is none.
        batch_invariant: as for ``QuantLinear``. The sum over ranks is the backend's.
    """

    def __init__(
        self,
        weight: PaddedWeight,
        bias: Tensor | None = None,
        *,
        input_is_parallel: bool = True,
        reduce_results: bool = True,
        process_group: dist.ProcessGroup | None = None,
        batch_invariant: bool = False,
    ) -> None:
        super().__init__(weight, bias, process_group, batch_invariant)
        self.input_is_parallel = self._check_flag("input_is_parallel", input_is_parallel)
        self.reduce_results = self._check_flag("reduce_results", reduce_results)
        self.in_features = self.k * self.world_size

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint_dir: str | os.PathLike[str],
        name: str,
        *,
        input_is_parallel: bool = True,
        reduce_results: bool = True,
        process_group: dist.ProcessGroup | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        batch_invariant: bool = False,
    ) -> RowParallelQuantLinear:
        """Reads this rank's rows of the layer `name`, the groups they touch, and its bias."""
        shard = shard_of(cls, "k", process_group)
        weight = load_weight(checkpoint_dir, name, shard=shard, device=device, dtype=dtype)
        return cls(
            weight,
            load_bias(checkpoint_dir, name, weight, shard=shard),
            input_is_parallel=input_is_parallel,
            reduce_results=reduce_results,
            process_group=process_group,
            batch_invariant=batch_invariant,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., k of this rank), or (..., in_features), to (..., n)."""
        if not self.input_is_parallel:
            self._check_input(x, self.in_features)
            x = x[..., self.rank * self.k : (self.rank + 1) * self.k]
        y = self._multiply(x, self.bias if self.rank == 0 else None)
        if not self.reduce_results or self.world_size == 1:
            return y
        return all_reduce(y, self.process_group)


def shard_of(
    cls: type, axis: str, process_group: dist.ProcessGroup | None, replicas: int = 1
) -> Shard | None:
    """This rank's part along an axis, the same for `replicas` neighbours; None: all of it."""
    rank, size = rank_and_size(cls.__name__, process_group)
    parts = size // replicas
    return None if parts == 1 else Shard(axis, rank // replicas, parts)
