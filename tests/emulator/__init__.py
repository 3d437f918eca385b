# SPDX-License-Identifier: Apache-2.0
"""The project's CUDA kernels on the CPU: `native` is their module, built when this is imported."""

from .build import load

native = load()
