# SPDX-License-Identifier: Apache-2.0
"""Readers of checkpoint formats: each turns a format's tensors into a ``PaddedWeight``."""

from padmarlin.formats.awq import repack_awq
from padmarlin.formats.compressed_tensors import repack_compressed_tensors
from padmarlin.formats.gptq import repack_gptq

__all__ = ["repack_awq", "repack_compressed_tensors", "repack_gptq"]
