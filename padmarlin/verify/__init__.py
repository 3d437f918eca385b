# SPDX-License-Identifier: Apache-2.0
"""Across ranks, against an independent reference: is what padmarlin computes right?"""

from padmarlin.verify.ranks import RanksFailed
from padmarlin.verify.report import LayerResult, Report
from padmarlin.verify.run import Progress, verify_checkpoint

__all__ = ["LayerResult", "Progress", "RanksFailed", "Report", "verify_checkpoint"]
