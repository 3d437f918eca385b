# SPDX-License-Identifier: Apache-2.0
"""``PADMARLIN_VLLM``: which models padmarlin takes from vLLM."""

from __future__ import annotations

import os
from enum import Enum

from padmarlin.errors import refusal

VARIABLE = "PADMARLIN_VLLM"


class Mode(Enum):
    """What is taken of the GPTQ, AWQ and compressed-tensors models that vLLM loads."""

    AUTO = "auto"  # layers that vLLM refuses, or gets wrong, at this tensor-parallel size
    ALWAYS = "always"  # all layers that padmarlin can run
    NEVER = "never"  # nothing: the plugin does not register


def mode_from_environment() -> Mode:
    """The mode that ``PADMARLIN_VLLM`` names; unset or empty: auto."""
    value = os.environ.get(VARIABLE, "") or Mode.AUTO.value
    try:
        return Mode(value.strip().lower())
    except ValueError:
        expected = " or ".join(repr(mode.value) for mode in Mode)
        remedy = f"unset {VARIABLE} for the default, auto"
        raise ValueError(
            refusal("padmarlin.integrations.vllm.register", VARIABLE, repr(value), expected, remedy)
        ) from None
