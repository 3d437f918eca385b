# SPDX-License-Identifier: Apache-2.0
"""Loads ``_C.so``, the CUDA half of padmarlin, if it was built; remembers why if it was not.

Loading it registers the CUDA implementations of the operators in :mod:`padmarlin.ops`. It does
not initialise CUDA and needs no GPU, nor a torch with CUDA.
"""

from __future__ import annotations

import ctypes
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from padmarlin.errors import refusal
from padmarlin.layout import FORMAT_VERSION

LIBRARY = Path(__file__).with_name("_C.so")

_HOW_TO_BUILD = (
    "install the CUDA toolkit (nvcc >= 12.0) and g++, then reinstall padmarlin from its sources "
    "(`PADMARLIN_CUDA=ON pip install .`); CPU tensors work without"
)


@dataclass(frozen=True)
class ExtensionStatus:
    """Whether CUDA tensors can be multiplied, and what that rests on."""

    available: bool
    reason: str  # why not; empty if available
    build_info: dict[str, Any] = field(default_factory=dict)  # csrc/torch/build_info.cpp.in


def _load() -> ExtensionStatus:
    if not LIBRARY.exists():
        return ExtensionStatus(False, "built without nvcc, or with PADMARLIN_CUDA=OFF")
    try:
        torch.ops.load_library(str(LIBRARY))
        build_info = ctypes.CDLL(str(LIBRARY)).padmarlin_build_info
    except (OSError, RuntimeError, AttributeError) as error:
        return ExtensionStatus(False, f"{LIBRARY.name} does not load: {error}")
    build_info.restype = ctypes.c_char_p
    info: dict[str, Any] = json.loads(build_info())
    if info["format_version"] != FORMAT_VERSION:
        # An editable install whose Python moved on. Its kernels would read the tiles wrongly.
        reason = f"{LIBRARY.name} is stale: format {info['format_version']}, not {FORMAT_VERSION}"
        return ExtensionStatus(False, reason, info)
    return ExtensionStatus(True, "", info)


_status = _load()


def named_devices() -> tuple[str, ...]:
    """The GPUs that :func:`explain_gemm` knows by name."""
    names = _library().padmarlin_named_devices
    names.restype = ctypes.c_char_p
    return tuple(names().decode().split())


def explain_gemm(
    gpu: str,
    *,
    m: int,
    k: int,
    n: int,
    padded_k: int,
    padded_n: int,
    bits: int,
    weight_bytes: int,
    asymmetric: bool,
    gathers: bool,
    copy_bytes: int,
    batch_invariant: bool,
) -> str:
    """What gemm would choose on a GPU of that name (csrc/torch/explain.cpp). No GPU is needed, but
    the compiled library is. `copy_bytes` is the widest copy of several rows, whatever `m` is."""
    function = _library().padmarlin_explain
    function.restype = ctypes.c_char_p
    sizes = map(ctypes.c_int64, (m, k, n, padded_k, padded_n, bits, weight_bytes))
    flags = (ctypes.c_bool(asymmetric), ctypes.c_bool(gathers), ctypes.c_int64(copy_bytes))
    text = function(gpu.encode(), *sizes, *flags, ctypes.c_bool(batch_invariant))
    if text is None:
        known = ", ".join(named_devices())
        raise ValueError(refusal("explain", "gpu", repr(gpu), f"one of {known}"))
    return text.decode()


def force_kernel(name: str) -> None:
    """``PADMARLIN_KERNEL`` = `name` for all further calls of this process: "auto", "mma",
    "wgmma" or "scratch". For programs that measure; a captured graph keeps the kernels it has."""
    function = _library("force_kernel").padmarlin_force_kernel
    function.restype = ctypes.c_bool
    if not function(name.encode()):
        expected = "'auto', 'mma', 'wgmma' or 'scratch'"
        raise ValueError(refusal("force_kernel", "name", repr(name), expected))


def device_numbers(index: int) -> tuple[int, int, int]:
    """Architecture (90: sm_90), SMs and nominal GB/s of a GPU, as the dispatcher has them."""
    numbers = (ctypes.c_int * 3)()
    if not _library("device_numbers").padmarlin_device_numbers(ctypes.c_int(index), numbers):
        got = f"cuda:{index}, whose properties cannot be read"
        raise RuntimeError(refusal("device_numbers", "index", got, "a GPU that works"))
    return numbers[0], numbers[1], numbers[2]


def _library(function_name: str = "explain") -> ctypes.CDLL:
    if not _status.available:
        raise RuntimeError(
            refusal(
                function_name,
                "padmarlin",
                f"no CUDA kernels ({_status.reason})",
                "a CUDA build; no GPU is needed",
                _HOW_TO_BUILD,
            )
        )
    return ctypes.CDLL(str(LIBRARY))


def extension_status() -> ExtensionStatus:
    """What became of ``_C.so`` when padmarlin was imported."""
    return _status


def require_extension(function_name: str, argument: str = "a") -> None:
    """Raises RuntimeError if ``function_name`` cannot run on CUDA tensors, as ``argument`` is."""
    if not _status.available:
        got = f"a CUDA tensor, but no CUDA kernels ({_status.reason})"
        raise RuntimeError(
            refusal(function_name, argument, got, "a CPU tensor, or a CUDA build", _HOW_TO_BUILD)
        )
