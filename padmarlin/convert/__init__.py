# SPDX-License-Identifier: Apache-2.0
"""Checkpoints into checkpoints, losslessly: padded, unpadded, and with act-order folded away.

Nothing here needs torch: tensors are bits that move, one at a time, from file to file.
"""

from padmarlin.convert.fold import FoldingReport, fold_checkpoint
from padmarlin.convert.job import Progress
from padmarlin.convert.pad import PaddingReport, pad_checkpoint
from padmarlin.convert.unpad import UnpaddingReport, unpad_checkpoint

__all__ = [
    "FoldingReport",
    "PaddingReport",
    "Progress",
    "UnpaddingReport",
    "fold_checkpoint",
    "pad_checkpoint",
    "unpad_checkpoint",
]
