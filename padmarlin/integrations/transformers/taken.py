# SPDX-License-Identifier: Apache-2.0
"""Which checkpoints padmarlin takes, by their ``quantization_config``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def why_not(settings: Mapping[str, Any]) -> str | None:
    """What is in `settings` that padmarlin has no kernels for; None: it takes the checkpoint.

    Only what tells another kind of checkpoint apart is looked at. One of the right kind that is
    damaged is taken, and refused with its fault.
    """
    method = str(settings.get("quant_method", "")).lower()
    if method == "compressed-tensors":
        return _why_not_compressed_tensors(settings)
    bits = settings.get("bits", 4)
    if bits not in ((4, 8) if method == "gptq" else (4,)):
        return f"{method} of {bits} bits"
    known = ("gptq", "gptq_v2") if method == "gptq" else ("gemm",)
    for key in ("checkpoint_format", "format", "version"):
        named = settings.get(key)
        if isinstance(named, str) and named.lower() not in known:
            return f"{method} of {key} {named!r}"
    return None


def _why_not_compressed_tensors(settings: Mapping[str, Any]) -> str | None:
    groups = settings.get("config_groups")
    if not isinstance(groups, Mapping):
        return "compressed-tensors without config_groups"
    for name, group in groups.items():
        if not isinstance(group, Mapping):
            return f"no settings in {name}"
        packing = group.get("format") or settings.get("format")
        if packing != "pack-quantized":
            return f"format {packing!r} of {name}"
        if group.get("input_activations") or group.get("output_activations"):
            return f"quantized activations of {name}"
        weights = group.get("weights")
        weights = weights if isinstance(weights, Mapping) else {}
        bits, kind = weights.get("num_bits"), weights.get("type", "int")
        if kind != "int" or bits not in (4, 8):
            return f"weights of type {kind!r} and {bits} bits in {name}"
    return None
