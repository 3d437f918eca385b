# SPDX-License-Identifier: Apache-2.0
"""csrc/torch's host code on CPU tensors, its kernels on the emulator."""
