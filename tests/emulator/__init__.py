# SPDX-License-Identifier: Apache-2.0
"""The project's CUDA kernels on the CPU. `from emulator import native` builds and loads them."""

from emulator.build import load

native = load()
