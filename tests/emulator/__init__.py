# SPDX-License-Identifier: Apache-2.0
"""The project's CUDA kernels on the CPU. `from tests.emulator import native` builds and loads them."""

from .build import load

native = load()
