# SPDX-License-Identifier: Apache-2.0
"""Repacked shards: every rank's part of every layer, written once, so that workers only read."""

from padmarlin.models.axes import cut_axis, why_whole
from padmarlin.shards.repack import repack_checkpoint

__all__ = ["cut_axis", "repack_checkpoint", "why_whole"]
