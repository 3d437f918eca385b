# SPDX-License-Identifier: Apache-2.0
"""Readers of checkpoint formats: each turns a format's tensors into a ``PaddedWeight``."""

from padmarlin.formats.gptq import repack_gptq

__all__ = ["repack_gptq"]
