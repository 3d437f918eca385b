# SPDX-License-Identifier: Apache-2.0
"""``enable()``: from then on ``AutoModelForCausalLM.from_pretrained`` and its kind load GPTQ, AWQ
and compressed-tensors checkpoints into padmarlin layers (``docs/transformers.md``)."""

from __future__ import annotations

from padmarlin.errors import refusal

OLDEST, NEWEST = (5, 4), (5, 23)
"""The versions of Transformers, both included, that this was tested with."""

_OLDEST = ".".join(map(str, OLDEST))


def enable() -> None:
    """Makes ``from_pretrained`` use padmarlin for the checkpoints that it takes, in this process.

    Again is as good as once. What padmarlin does not take (other methods, bits or packings) stays
    with Transformers. Neither optimum, gptqmodel, autoawq nor compressed-tensors is needed.

    Raises:
        ImportError: no Transformers, or one that is older than 5.4.
    """
    _check_version()
    from padmarlin.integrations.transformers import mappings

    mappings.install()


def disable() -> None:
    """Takes ``enable()`` back. Models that are loaded stay as they are."""
    _check_version()
    from padmarlin.integrations.transformers import mappings

    mappings.remove()


def _check_version() -> None:
    try:
        import transformers
    except ImportError as error:
        remedy = f"pip install 'transformers>={_OLDEST}'"
        message = refusal("enable", "transformers", "no such package", f">= {_OLDEST}", remedy)
        raise ImportError(message) from error
    version = str(transformers.__version__)
    major_minor = tuple(int(part) for part in version.split(".")[:2])
    if major_minor < OLDEST:
        remedy = "pip install -U transformers, or build the layers with padmarlin.nn"
        raise ImportError(refusal("enable", "transformers", version, f">= {_OLDEST}", remedy))
    if major_minor > NEWEST:
        from transformers.utils import logging

        newest = ".".join(map(str, NEWEST))
        message = f"padmarlin was tested with Transformers up to {newest}; this is {version}."
        logging.get_logger(__name__).warning_once(message)
