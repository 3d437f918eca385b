# SPDX-License-Identifier: Apache-2.0
"""Whether padmarlin can run at all where vLLM runs."""

from __future__ import annotations

from vllm.platforms import current_platform

from padmarlin._extension import extension_status

_LEAST_CAPABILITY = 80  # csrc/cuda is compiled for sm_80 and newer


def why_unfit() -> str | None:
    """Why not; None: it can."""
    if current_platform.is_cpu():
        return None
    if not current_platform.is_cuda():
        return f"no kernels for {current_platform.device_name}"
    status = extension_status()
    if not status.available:
        return f"padmarlin has no CUDA kernels ({status.reason})"
    capability = current_platform.get_device_capability()
    if capability is not None and capability.to_int() < _LEAST_CAPABILITY:
        return f"compute capability {capability.major}.{capability.minor}, 8.0 is the least"
    return None
