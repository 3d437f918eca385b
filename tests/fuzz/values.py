# SPDX-License-Identifier: Apache-2.0
"""What a hostile caller passes instead of a valid argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import reject
from hypothesis import strategies as st
from torch import Tensor

from padmarlin import Shard

ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.sampled_from([2**31 - 64, 2**31 - 1, 2**31, 2**63, -(2**63), 10**30]),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["k", "n", "gptq", "gptq_v2", "cpu", "cuda", "meta"]),
    st.sampled_from([Shard("k", 1, 2), Shard("n", 0, 2), Shard("k", 2, 3), Shard("n", 4, 5)]),
    st.sampled_from([np.int64(4), np.int8(64), np.float32(4), np.True_, np.array([4, 8])]),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.int32]),
    st.sampled_from([[], {}, (), b"k", object(), torch.tensor(4), torch.tensor([4, 8]), Tensor]),
)


def _inference(tensor: Tensor) -> Tensor:
    with torch.inference_mode():
        return tensor.clone()


def _parameter(tensor: Tensor) -> Tensor:
    return torch.nn.Parameter(tensor, requires_grad=tensor.is_floating_point())


def _one_bit(tensor: Tensor) -> Tensor:
    changed = tensor.clone().contiguous()
    changed.view(torch.uint8).view(-1)[-1] ^= 64
    return changed


TENSOR_CHANGES: dict[str, Callable[[Tensor], Any]] = {
    # The same values, held otherwise.
    "strided": lambda t: torch.stack([t, t], -1)[..., 0],
    "inference": _inference,
    "parameter": _parameter,
    "wider int": lambda t: t.long(),
    # Other values.
    "zero": torch.zeros_like,
    "negative": lambda t: -t,
    "reversed": lambda t: t.flip(0),
    "first row everywhere": lambda t: t[:1].expand(t.shape),
    "one bit": _one_bit,
    "nan": lambda t: (t.float() * float("nan")).to(t.dtype),
    "inf": lambda t: (t.float() / 0).to(t.dtype),
    "huge": lambda t: t.long() * 2**40 + 2**33,
    "tiny": lambda t: t.float() * 1e-12,
    # Other shapes.
    "transposed": lambda t: t.movedim(0, -1),
    "one row less": lambda t: t[:-1],
    "one row more": lambda t: torch.cat([t, t[:1]]),
    "one column less": lambda t: t[..., :-1],
    "no rows": lambda t: t[:0],
    "no columns": lambda t: t[..., :0],
    "a dimension more": lambda t: t[None],
    "a scalar": lambda t: t.flatten()[0],
    # Other types.
    "fp16": lambda t: t.half(),
    "bf16": lambda t: t.bfloat16(),
    "fp32": lambda t: t.float(),
    "fp64": lambda t: t.double(),
    "fp8": lambda t: t.to(torch.float8_e4m3fn),
    "complex": lambda t: t.to(torch.complex64),
    "bool": lambda t: t.bool(),
    "int16": lambda t: t.short(),
    "uint8": lambda t: t.to(torch.uint8),
    "quantized": lambda t: torch.quantize_per_tensor(t.float(), 1.0, 0, torch.qint8),
    "sparse": lambda t: t.to_sparse(),
    "mkldnn": lambda t: t.float().to_mkldnn(),
    "nested": lambda t: torch.nested.nested_tensor([t], dtype=t.dtype),
    "meta": lambda t: t.to("meta"),
    # No tensors.
    "list": lambda t: t.tolist(),
    "numpy": lambda t: t.float().numpy(),
    "none": lambda t: None,
}


Change = tuple[str, Any, str]
"""An argument, its value from now on, and what happens to it instead where it is a tensor."""


def changes(arguments: list[str]) -> st.SearchStrategy[list[Change]]:
    """At most two, and sometimes none, for the sake of the answers."""
    change = st.tuples(
        st.sampled_from(arguments), ODD_VALUES, st.sampled_from(sorted(TENSOR_CHANGES))
    )
    return st.lists(change, max_size=2, unique_by=lambda change: change[0])


def changed(arguments: dict[str, Any], changes: list[Change]) -> dict[str, Any]:
    result = dict(arguments)
    for name, value, tensor_change in changes:
        if isinstance(result.get(name), Tensor):
            try:
                value = TENSOR_CHANGES[tensor_change](result[name])
            except (RuntimeError, IndexError):
                reject()  # there is no such tensor: the last row of none, a sparse bfloat16
        result[name] = value
    return result
