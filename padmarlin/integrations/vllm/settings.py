# SPDX-License-Identifier: Apache-2.0
"""Whether a checkpoint's quantization settings are of a kind that padmarlin reads. No vLLM here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BITS = (4, 8)

REORDERING = ("group", "dynamic", True)
"""compressed-tensors' values of "actorder" that need a g_idx; "static" and "weight" do not."""

ALIASES = {
    "gptq": ("gptq", "gptq_marlin", "auto_gptq", "marlin"),
    "awq": ("awq", "awq_marlin", "auto_awq", "marlin"),
    "compressed-tensors": ("compressed-tensors",),
}
"""What `--quantization` calls each method in vLLM; each means the same as not giving it."""


def method_of(config: Mapping[str, Any]) -> str | None:
    """One of ALIASES, if padmarlin reads checkpoints with these settings; else None."""
    # AutoGPTQ's and AutoAWQ's own files name no method.
    unnamed = "awq" if "w_bit" in config else "gptq"
    reader = _READERS.get(str(config.get("quant_method", unnamed)).lower())
    return reader(config) if reader is not None else None


def _gptq(config: Mapping[str, Any]) -> str | None:
    # Other layouts under the same name: "marlin", "bitblas", ...
    written = config.get("checkpoint_format") or config.get("format") or "gptq"
    reads = written in ("gptq", "gptq_v2") and config.get("bits") in _BITS
    return "gptq" if reads and _packs_int32(config) else None


def _awq(config: Mapping[str, Any]) -> str | None:
    bits = config.get("bits", config.get("w_bit"))
    version = str(config.get("version") or "gemm").lower()
    reads = bits == 4 and version == "gemm"
    return "awq" if reads and _packs_int32(config) else None


def _compressed_tensors(config: Mapping[str, Any]) -> str | None:
    groups = config.get("config_groups")
    if not isinstance(groups, Mapping):
        return None
    common = config.get("format")
    packed = any(
        isinstance(group, Mapping) and _is_packed(group, group.get("format") or common)
        for group in groups.values()
    )
    return "compressed-tensors" if packed else None


def _is_packed(group: Mapping[str, Any], written: object) -> bool:
    weights = group.get("weights")
    return (
        written == "pack-quantized"
        and isinstance(weights, Mapping)
        and weights.get("type", "int") == "int"
        and weights.get("num_bits") in _BITS
        and not group.get("input_activations")
    )


def _packs_int32(config: Mapping[str, Any]) -> bool:
    return config.get("pack_dtype", "int32") == "int32"


_READERS = {"gptq": _gptq, "awq": _awq, "compressed-tensors": _compressed_tensors}
