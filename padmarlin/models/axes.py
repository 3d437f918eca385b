# SPDX-License-Identifier: Apache-2.0
"""Which axis of a layer tensor parallelism cuts, where only the layer's name tells."""

from __future__ import annotations

from padmarlin.models.layers import Axis

_ROW_PARALLEL = frozenset(
    # The layers that end a block. Llama's and most others'; GPT-2's, OPT's, GPT-J's;
    {"o_proj", "down_proj", "c_proj", "out_proj", "fc2", "fc_out"}
    # Falcon's and BLOOM's; Megatron's; Mixtral's and InternLM's; OLMo's.
    | {"dense", "dense_4h_to_h", "linear_proj", "linear_fc2", "w2", "wo", "ff_out", "attn_out"}
)


def cut_axis(name: str) -> Axis:
    """ "k" for layers that end a block (row-parallel), "n" for all others (column-parallel)."""
    return "k" if name.rpartition(".")[2] in _ROW_PARALLEL else "n"


def why_whole(axis: str, k: int, n: int, tp: int) -> str | None:
    """Why a (k, n) layer cannot be cut along that axis; None if it can."""
    size = k if axis == "k" else n
    return f"{axis} = {size} is no multiple of {tp}" if size % tp else None
