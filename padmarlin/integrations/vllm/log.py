# SPDX-License-Identifier: Apache-2.0
"""The logger. vLLM shows what loggers below "vllm" say, at its own level and in its own format."""

from __future__ import annotations

import logging

logger = logging.getLogger("vllm.padmarlin")
