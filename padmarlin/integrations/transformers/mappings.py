# SPDX-License-Identifier: Apache-2.0
"""Where Transformers looks up what loads a checkpoint: two dictionaries by the method's name.

``register_quantizer`` refuses names that are taken, so their entries are exchanged for some that
ask of each checkpoint whether padmarlin takes it, and pass on to the former ones what it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers.quantizers import auto
from transformers.utils import logging

from padmarlin.integrations.transformers.quantizer import (
    METHODS,
    PadmarlinConfig,
    PadmarlinQuantizer,
)
from padmarlin.integrations.transformers.taken import why_not

_logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class _ConfigChoice:
    """Stands for a class of quantization settings, of which Transformers wants ``from_dict``."""

    stock: Any

    def from_dict(self, config_dict: Mapping[str, Any], **arguments: Any) -> Any:
        reason = why_not(config_dict)
        if reason is None:
            return PadmarlinConfig.from_dict(config_dict, **arguments)
        _logger.warning(f"padmarlin leaves this checkpoint to Transformers: {reason}.")
        return self.stock.from_dict(config_dict, **arguments)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.stock(*arguments, **named)


@dataclass(frozen=True)
class _QuantizerChoice:
    """Stands for a quantizer's class, which Transformers calls with the settings."""

    stock: Any

    def __call__(self, quantization_config: Any, **arguments: Any) -> Any:
        takes = isinstance(quantization_config, PadmarlinConfig)
        return (PadmarlinQuantizer if takes else self.stock)(quantization_config, **arguments)


_CHOICES = (
    (auto.AUTO_QUANTIZATION_CONFIG_MAPPING, _ConfigChoice),
    (auto.AUTO_QUANTIZER_MAPPING, _QuantizerChoice),
)


def install() -> None:
    for mapping, choice in _CHOICES:
        for method in METHODS:
            if not isinstance(mapping[method], choice):
                mapping[method] = choice(mapping[method])


def remove() -> None:
    for mapping, choice in _CHOICES:
        for method in METHODS:
            if isinstance(mapping[method], choice):
                mapping[method] = mapping[method].stock
