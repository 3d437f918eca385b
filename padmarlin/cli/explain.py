# SPDX-License-Identifier: Apache-2.0
"""``padmarlin env --explain M K N``: which kernel a multiplication gets, and why."""

from __future__ import annotations

import torch

from padmarlin._extension import explain_gemm, named_devices
from padmarlin.errors import INT32_MAX, check_choice, check_int, refusal
from padmarlin.layout import SLICE
from padmarlin.plan import plan

# No GPU is at hand and none is named.
_DEFAULT_GPU = "h200"

_ELEMENT_BYTES = 2  # of activations and scales, fp16 or bf16
_WIDEST_COPY = 16
_MAX_EXTENT = INT32_MAX - 256  # csrc/torch/checks.h: room for rounding up to a tile


def explanation(
    m: int,
    k: int,
    n: int,
    *,
    bits: int,
    group_size: int,
    act_order: bool,
    asymmetric: bool,
    batch_invariant: bool,
    gpu: str | None,
) -> str:
    """The choice of kernel for a contiguous (m, k) by an unsharded (k, n), as text."""
    check_int("explain", "M", m, 1)
    sizes = plan(k, n, bits=bits, group_size=group_size, act_order=act_order).ranks[0]
    for name, size in (("M", m), ("K", sizes.padded_k), ("N", sizes.padded_n)):
        if size > _MAX_EXTENT:
            raise ValueError(refusal("explain", name, size, f"at most {_MAX_EXTENT}"))
    gpu = _gpu_here() if gpu is None else gpu.lower()
    check_choice("explain", "--gpu", gpu, named_devices())
    return explain_gemm(
        gpu,
        m=m,
        k=k,
        n=n,
        padded_k=sizes.padded_k,
        padded_n=sizes.padded_n,
        bits=bits,
        weight_bytes=_weight_bytes(k, sizes.padded_k, sizes.padded_n, bits, group_size, asymmetric),
        asymmetric=asymmetric,
        gathers=act_order,
        copy_bytes=_copy_bytes(k),
        batch_invariant=batch_invariant,
    )


def _weight_bytes(
    k: int, padded_k: int, padded_n: int, bits: int, group_size: int, asymmetric: bool
) -> int:
    """Of the packed weight (docs/layout.md), without the column table of act-order."""
    scale_rows = 1 if group_size == -1 else -(-k // group_size)
    per_group = _ELEMENT_BYTES * (2 if asymmetric else 1)
    return (
        padded_k * padded_n * bits // 8 + scale_rows * padded_n * per_group + padded_k // SLICE * 4
    )


def _copy_bytes(k: int) -> int:
    """The widest copy that rows of a contiguous A with an aligned address allow."""
    pitch = _ELEMENT_BYTES * k
    return min(pitch & -pitch, _WIDEST_COPY)


def _gpu_here() -> str:
    """The name of the first GPU that torch sees, if it is a known one."""
    if not torch.cuda.is_available():
        return _DEFAULT_GPU
    words = torch.cuda.get_device_name(0).lower().split()
    return next((name for name in named_devices() if name in words), _DEFAULT_GPU)
