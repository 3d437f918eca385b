# SPDX-License-Identifier: Apache-2.0
"""The ranks that share a layer: which of them this process is, and what they exchange."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from padmarlin.errors import refusal

_HAS_SINGLE = hasattr(dist, "all_gather_single")
"""torch 2.13 gave all_gather_into_tensor this name, and deprecated the old one."""


def rank_and_size(function: str, process_group: Any) -> tuple[int, int]:
    """(rank, size) inside `process_group`; None: the default group, or one rank without any."""
    if process_group is None:
        if not (dist.is_available() and dist.is_initialized()):
            return 0, 1
        return dist.get_rank(), dist.get_world_size()
    is_group = dist.is_available() and isinstance(process_group, dist.ProcessGroup)
    outside = dist.is_available() and process_group is dist.GroupMember.NON_GROUP_MEMBER
    if outside or (is_group and dist.get_rank(process_group) < 0):
        expected = "a group that this process is a member of"
        remedy = "build the layer on the members of the group only"
        raise ValueError(refusal(function, "process_group", "another's group", expected, remedy))
    if not is_group:
        got, expected = type(process_group).__name__, "a torch.distributed.ProcessGroup or None"
        raise TypeError(refusal(function, "process_group", got, expected))
    return dist.get_rank(process_group), dist.get_world_size(process_group)


def all_reduce(partial: Tensor, process_group: dist.ProcessGroup | None) -> Tensor:
    """The sum over the ranks, in the memory of `partial`."""
    dist.all_reduce(partial, group=process_group)
    return partial


def all_gather(part: Tensor, size: int, process_group: dist.ProcessGroup | None) -> Tensor:
    """(size, *part.shape): every rank's part."""
    whole = torch.empty(
        (size * part.shape[0], *part.shape[1:]), dtype=part.dtype, device=part.device
    )
    gather = dist.all_gather_single if _HAS_SINGLE else dist.all_gather_into_tensor
    gather(whole, part.contiguous(), group=process_group)
    return whole.view(size, *part.shape)
