# SPDX-License-Identifier: Apache-2.0
"""``MergedColumnParallelQuantLinear``: several matrices of one input, multiplied in one call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from padmarlin.checkpoint import load_weight
from padmarlin.checkpoint.bias import load_bias
from padmarlin.errors import check_int, refusal
from padmarlin.nn.group import rank_and_size
from padmarlin.nn.parallel import ColumnParallelQuantLinear, shard_of
from padmarlin.nn.unpacked import beside, same_rows
from padmarlin.weight import PaddedWeight


class MergedColumnParallelQuantLinear(ColumnParallelQuantLinear):
    """gate and up, or q, k and v: each rank has its part of every matrix, one beside the other.

    The matrices may differ in n. They must agree in k, bits, group size, dtype and act-order
    (``g_idx``): quantizers that see the same input write the same.

    Args:
        weights: this rank's part of each matrix.
        biases: of each matrix, or None in it, or None for no bias at all.
        replicas: for each matrix, how many neighbouring ranks have the same part of it: for q, k, v
            with fewer key heads than ranks, (1, world_size / heads, world_size / heads).
        names: what refusals call the matrices.
        gather_output: return the whole matrices' columns, one matrix behind the other.
        process_group, batch_invariant: as for ``ColumnParallelQuantLinear``.

    ``split_sizes`` has this rank's columns of each matrix, for ``torch.split``.
    """

    def __init__(
        self,
        weights: Sequence[PaddedWeight],
        biases: Sequence[Tensor | None] | None = None,
        *,
        replicas: Sequence[int] | None = None,
        names: Sequence[str] | None = None,
        gather_output: bool = False,
        process_group: dist.ProcessGroup | None = None,
        batch_invariant: bool = False,
    ) -> None:
        function = type(self).__name__
        _check_sequences(function, weights, biases, names)
        labels = (
            list(names) if names is not None else [f"weights[{i}]" for i in range(len(weights))]
        )
        merged = weights[0] if len(weights) == 1 else merge(function, list(weights), labels)
        super().__init__(
            merged,
            _merged_bias(function, weights, biases, labels),
            gather_output=gather_output,
            process_group=process_group,
            batch_invariant=batch_invariant,
        )
        self.split_sizes = [weight.n for weight in weights]
        self.replicas = checked_replicas(function, replicas, len(weights), self.world_size)
        self.out_features = sum(
            n * self.world_size // copies
            for n, copies in zip(self.split_sizes, self.replicas, strict=True)
        )

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint_dir: str | os.PathLike[str],
        names: Sequence[str],
        *,
        replicas: Sequence[int] | None = None,
        gather_output: bool = False,
        process_group: dist.ProcessGroup | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        batch_invariant: bool = False,
    ) -> MergedColumnParallelQuantLinear:
        """Reads this rank's columns of each of the layers `names`, and of their biases."""
        checked = checked_names(cls.__name__, names)
        _, size = rank_and_size(cls.__name__, process_group)
        copies = checked_replicas(cls.__name__, replicas, len(checked), size)
        weights, biases = [], []
        for name, count in zip(checked, copies, strict=True):
            shard = shard_of(cls, "n", process_group, count)
            weight = load_weight(checkpoint_dir, name, shard=shard, device=device, dtype=dtype)
            weights.append(weight)
            biases.append(load_bias(checkpoint_dir, name, weight, shard=shard))
        return cls(
            weights,
            biases,
            replicas=copies,
            names=checked,
            gather_output=gather_output,
            process_group=process_group,
            batch_invariant=batch_invariant,
        )

    def _in_order(self, parts: Tensor) -> Tensor:
        pieces = torch.split(parts, self.split_sizes, dim=-1)
        return torch.cat(
            [
                super(MergedColumnParallelQuantLinear, self)._in_order(piece[::copies])
                for piece, copies in zip(pieces, self.replicas, strict=True)
            ],
            dim=-1,
        )


def merge(function: str, weights: list[PaddedWeight], labels: Sequence[str]) -> PaddedWeight:
    """One weight of the columns of several."""
    first = weights[0]
    for label, weight in zip(labels, weights, strict=True):
        for what in ("k", "bits", "group_size", "dtype", "device"):
            got, expected = getattr(weight, what), getattr(first, what)
            if got != expected:
                _refuse_merge(function, label, f"{what} = {got}", f"{expected}, as {labels[0]} has")
        if not same_rows(weight, first):
            expected = f"that of {labels[0]}: one call reads its input in one order"
            _refuse_merge(function, label, "another g_idx (act-order)", expected)
    return beside(weights)


def _refuse_merge(function: str, label: str, got: str, expected: str) -> None:
    remedy = "use a ColumnParallelQuantLinear for each of them"
    raise ValueError(refusal(function, label, got, expected, remedy))


def checked_names(function: str, names: Any) -> list[str]:
    is_list = isinstance(names, Sequence) and not isinstance(names, str)
    if not is_list or not names or not all(isinstance(name, str) for name in names):
        expected = 'a sequence of names, as ["...q_proj", "...k_proj", "...v_proj"]'
        raise TypeError(refusal(function, "names", repr(names), expected))
    return list(names)


def checked_replicas(function: str, replicas: Any, count: int, world_size: int) -> tuple[int, ...]:
    """For each of `count` matrices how many ranks share a part; None: every rank has its own."""
    if replicas is None:
        return (1,) * count
    if not isinstance(replicas, Sequence) or len(replicas) != count:
        raise ValueError(refusal(function, "replicas", repr(replicas), f"{count} ints, or None"))
    checked = tuple(check_int(function, "replicas", number, 1) for number in replicas)
    for number in checked:
        if world_size % number:
            expected = f"divisors of the {world_size} ranks"
            raise ValueError(refusal(function, "replicas", number, expected))
    return checked


def _check_sequences(function: str, weights: Any, biases: Any, names: Any) -> None:
    is_list = isinstance(weights, Sequence) and len(weights) > 0
    if not is_list or not all(isinstance(weight, PaddedWeight) for weight in weights):
        got = type(weights).__name__
        raise TypeError(refusal(function, "weights", got, "a sequence of PaddedWeights"))
    for argument, values in (("biases", biases), ("names", names)):
        if values is not None and (
            not isinstance(values, Sequence)
            or isinstance(values, str)
            or len(values) != len(weights)
        ):
            got, expected = repr(type(values).__name__), f"{len(weights)} of them, as weights has"
            raise ValueError(refusal(function, argument, got, expected))


def _merged_bias(
    function: str,
    weights: Sequence[PaddedWeight],
    biases: Sequence[Tensor | None] | None,
    labels: Sequence[str],
) -> Tensor | None:
    """One behind the other; a matrix without one gets zeros if another has one."""
    if biases is None or all(bias is None for bias in biases):
        return None
    parts = []
    for weight, bias, label in zip(weights, biases, labels, strict=True):
        if bias is None:
            bias = torch.zeros(weight.n, dtype=weight.dtype, device=weight.device)
        elif not isinstance(bias, Tensor) or tuple(bias.shape) != (weight.n,):
            got = tuple(bias.shape) if isinstance(bias, Tensor) else type(bias).__name__
            raise ValueError(refusal(function, f"bias of {label}", got, f"({weight.n},) = (n,)"))
        parts.append(bias)
    return torch.cat(parts)
