# SPDX-License-Identifier: Apache-2.0
"""``load_weight``: checks its arguments, and reads a checkpoint's layer or a repacked one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from padmarlin import _extension
from padmarlin.checkpoint.reader import CheckpointReader
from padmarlin.checkpoint.refuse import refuse
from padmarlin.checkpoint.repacked import Repacked
from padmarlin.errors import check_device, refusal
from padmarlin.partition import Shard
from padmarlin.weight import PaddedWeight


def load_weight(
    checkpoint_dir: str | os.PathLike[str],
    name: str,
    *,
    shard: Shard | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> PaddedWeight:
    """Loads and repacks one quantized layer of a checkpoint directory.

    The result is what ``repack_*`` makes of the layer's whole tensors with the same ``shard``; but
    only the rank's part of them is read. A bias is not part of it.

    Args:
        checkpoint_dir: a local directory with config.json (``quantization_config``) or
            quantize_config.json, and safetensors files, sharded or not. Read are GPTQ (4 and 8
            bits, v1 and v2, act-order, per-layer ``dynamic`` settings), AWQ (version gemm) and
            compressed-tensors (pack-quantized, 4 and 8 bits, act-order); and what ``padmarlin
            repack`` made of one of these, which is already in place: only the file of the rank is
            read, and ``shard`` must be the cut that was made.
        name: the layer, e.g. "model.layers.0.mlp.down_proj".
        shard: the rank's part; None: all of it.
        device: where the weight is repacked and stays: "cpu" or "cuda".
        dtype: torch.float16 or torch.bfloat16; None: the scales' dtype, fp16 if that is fp32.

    Raises:
        ValueError: a checkpoint that lacks a file, a tensor or a setting, contradicts itself, is
            damaged, or of another method; a layer that does not exist or is not quantized; a size
            that the shard's world_size does not divide.
        TypeError: an argument of the wrong type. RuntimeError: "cuda" without a CUDA build.
    """
    directory = checked_directory(checkpoint_dir)
    _check_arguments(name, shard, dtype)
    checked_device = check_device("load_weight", device, ("cpu", "cuda"))
    if checked_device.type == "cuda":
        _extension.require_extension("load_weight", "device")
    repacked = Repacked.read(directory)
    source = CheckpointReader(directory) if repacked is None else repacked
    try:
        return source.load(name, shard, checked_device, dtype)
    except (TypeError, ValueError) as error:
        # A refusal is "function: argument: ..."; this caller never called repack_*.
        function, _, rest = str(error).partition(": ")
        if not function.startswith("repack_"):
            raise
        raise type(error)(f"load_weight: {name}: {rest}") from error


def checked_directory(checkpoint_dir: Any) -> Path:
    """`checkpoint_dir`, which must be a directory."""
    _check_kind("checkpoint_dir", checkpoint_dir, (str, os.PathLike))
    directory = Path(os.fsdecode(checkpoint_dir))
    if not os.path.isdir(directory):
        remedy = "download the checkpoint first: this is a path, not the name of a model"
        refuse("checkpoint_dir", repr(str(directory)), "an existing directory", remedy)
    return directory


def _check_arguments(name: Any, shard: Any, dtype: Any) -> None:
    _check_kind("name", name, (str,))
    _check_kind("shard", shard, (Shard, type(None)))
    _check_kind("dtype", dtype, (torch.dtype, type(None)))


def _check_kind(argument: str, value: Any, kinds: tuple[type, ...]) -> None:
    if not isinstance(value, kinds):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(refusal("load_weight", argument, type(value).__name__, expected))
