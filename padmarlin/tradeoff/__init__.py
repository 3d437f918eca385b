# SPDX-License-Identifier: Apache-2.0
"""What a choice of bits and group size means, before a model is quantized: error, bytes, limits."""

from padmarlin.tradeoff.gpus import GPUS, Gpu, limit_us
from padmarlin.tradeoff.markdown import to_markdown
from padmarlin.tradeoff.measure import tradeoff
from padmarlin.tradeoff.plot import check_plot, save_plot
from padmarlin.tradeoff.table import Choice, Entry, Total, TradeoffTable

__all__ = [
    "GPUS",
    "Choice",
    "Entry",
    "Gpu",
    "Total",
    "TradeoffTable",
    "check_plot",
    "limit_us",
    "save_plot",
    "to_markdown",
    "tradeoff",
]
