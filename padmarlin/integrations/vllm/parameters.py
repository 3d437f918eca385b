# SPDX-License-Identifier: Apache-2.0
"""Parameters that load what a rank keeps (``reading.py``) through vLLM's own weight loaders.

vLLM's layers say which columns go where: they call a `load_*` method of the parameter with the
whole tensor of the checkpoint, or, where the checkpoint has fused it, with a part that they cut
out along `output_dim`. The rows are the parameter's own business.

Each parameter keeps a list of what has come (`arrived`). vLLM makes the parameters anew when it
reloads weights, in memory that it does not clear, and it never asks whether all of them came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from vllm.model_executor.parameter import BasevLLMParameter, PackedvLLMParameter

from padmarlin.errors import refusal
from padmarlin.integrations.vllm.reading import UNSET
from padmarlin.integrations.vllm.words import Range

Reader = Callable[[Tensor, Range, torch.device], Tensor]
"""Of a checkpoint's tensor, these columns and the rank's rows, on a device."""

_Part = str | int | tuple[int, ...] | None
"""How vLLM names one of the matrices that it fuses; None: all of them."""

_FUSED = ("q", "k", "v", "index_q", "index_k")
"""vLLM's names of the matrices that an attention's fused projection consists of, in their order."""


class ColumnsParameter(PackedvLLMParameter):
    """A tensor whose last axis is the rank's columns, read by `read`."""

    def __init__(
        self,
        *,
        data: Tensor,
        absent: int,
        read: Reader,
        output_dim: int,
        packed_factor: int,
        weight_loader: Callable[..., None],
    ) -> None:
        # output_dim and packed_factor speak of the checkpoint's tensor, not of this one.
        super().__init__(
            data=data,
            input_dim=1 - output_dim,
            output_dim=output_dim,
            packed_dim=output_dim if packed_factor > 1 else 1 - output_dim,
            packed_factor=packed_factor,
            weight_loader=weight_loader,
        )
        self.absent = absent
        self.read = read
        self.arrived = torch.zeros(data.shape[1], dtype=torch.bool, device="cpu")

    def store(self, loaded: Tensor, first: int, offset: int, size: int) -> None:
        """Columns [first, first + size) of the checkpoint's become those from `offset` on."""
        target = self.data[:, offset : offset + size]
        if target.is_meta:
            # A reload: vLLM counts the elements that are copied, and loads them later.
            target.copy_(torch.empty_like(target))
            return
        target.copy_(self.read(loaded, (first, first + size), self.data.device))
        self.arrived[offset : offset + size] = True

    def complete(self) -> Tensor:
        """The data, with `absent` in the columns that have not come; forgets what has."""
        self.data[:, (~self.arrived).to(self.data.device)] = self.absent
        self.arrived.fill_(False)
        return self.data

    def load_column_parallel_weight(self, loaded_weight: Tensor) -> None:
        size = self.data.shape[1]
        self.store(loaded_weight, self.tp_rank * size, 0, size)

    def load_row_parallel_weight(self, loaded_weight: Tensor) -> None:
        self.store(loaded_weight, 0, 0, self.data.shape[1])

    def load_merged_column_weight(self, loaded_weight: Tensor, **kwargs: Any) -> None:
        size = kwargs["shard_size"]
        self.store(loaded_weight, self.tp_rank * size, kwargs["shard_offset"], size)

    def load_qkv_weight(self, loaded_weight: Tensor, **kwargs: Any) -> None:
        size = kwargs["shard_size"]
        # Fewer KV heads than ranks: `num_heads` ranks in a row hold the same one.
        replicas = 1 if kwargs["shard_id"] == "q" else kwargs["num_heads"]
        first = self.tp_rank // replicas * size
        self.store(loaded_weight, first, kwargs["shard_offset"], size)

    def adjust_shard_indexes_for_packing(
        self, shard_size: int, shard_offset: int
    ) -> tuple[int, int]:
        """In words, for a matrix fused in the checkpoint; vLLM's own rounds down."""
        factor = self.packed_factor
        if shard_size % factor or shard_offset % factor:
            got = f"{shard_size} columns from {shard_offset} on, {factor} to a word"
            remedy = "split it in the checkpoint, as quantizers of separate matrices do"
            function, argument = "padmarlin.integrations.vllm", "a matrix fused in the checkpoint"
            raise ValueError(refusal(function, argument, got, "parts of whole words", remedy))
        return shard_size // factor, shard_offset // factor


class GroupsParameter(BasevLLMParameter):
    """g_idx (parts, k): one row per fused matrix, or all alike where the checkpoint fuses them.

    Columns do not matter to it, so it needs no layer to say where they go.
    """

    def __init__(self, *, data: Tensor, read: Callable[[Tensor, torch.device], Tensor]) -> None:
        super().__init__(data=data, weight_loader=_load_groups)
        self.read = read
        self.arrived = torch.zeros(data.shape[0], dtype=torch.bool, device="cpu")

    def store(self, loaded: Tensor, part: _Part) -> None:
        rows = self._rows_of(part)
        if self.data.is_meta:
            self.data[rows].copy_(torch.empty_like(self.data[rows]))
            return
        self.data[rows] = self.read(loaded, self.data.device)
        self.arrived[rows] = True

    def _rows_of(self, part: _Part) -> slice | list[int]:
        if part is None:
            return slice(None)
        index = _FUSED.index(part) if isinstance(part, str) else part
        return list(index) if isinstance(index, tuple) else [index]

    def complete(self) -> Tensor:
        self.data[(~self.arrived).to(self.data.device)] = UNSET
        self.arrived.fill_(False)
        return self.data


def _load_groups(param: GroupsParameter, loaded: Tensor, part: _Part = None) -> None:
    param.store(loaded, part)


def ignored_parameter() -> Parameter:
    """For a tensor that vLLM insists on loading and that says nothing new: weight_shape."""

    def load(param: Tensor, loaded: Tensor, part: object = None) -> None:
        del param, loaded, part

    made = BasevLLMParameter(data=torch.zeros(2, dtype=torch.int64), weight_loader=load)
    made.weight_loader_numel = 0  # vLLM: so many elements are waited for in a reload
    return made


def repacked_parameter(data: Tensor, name: str) -> Parameter:
    """What is made of them. Nothing of a checkpoint can be loaded into it."""

    def refuse(param: Tensor, loaded: Tensor, part: object = None) -> None:
        del param, part
        got = f"a tensor {tuple(loaded.shape)} of a checkpoint, for a repacked weight"
        remedy = "use vLLM's reload_weights, or restart"
        function, argument = "padmarlin.integrations.vllm", f"weights of {name}"
        raise ValueError(refusal(function, argument, got, "weights reloaded by vLLM", remedy))

    made = Parameter(data, requires_grad=False)
    made.weight_loader = refuse  # type: ignore[attr-defined]
    return made
