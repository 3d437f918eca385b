# SPDX-License-Identifier: Apache-2.0
"""How the layers of a checkpoint are quantized, by its settings: for planning, which asks what they
say, and for reading, which also refuses what padmarlin cannot read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from padmarlin.checkpoint import compressed_scheme, gptq_scheme
from padmarlin.checkpoint.scheme import Excluded, Own, Scheme
from padmarlin.jsonfile import JsonObject, refuse


class _Method(NamedTuple):
    own_settings: Callable[[JsonObject, Sequence[str]], dict[str, Own]]
    scheme: Callable[[JsonObject], Scheme]  # of a layer's own settings
    check_packing: Callable[[JsonObject, JsonObject], None]  # of the common and of its own


_METHODS = {
    "gptq": _Method(
        gptq_scheme.own_settings, gptq_scheme.gptq_scheme, gptq_scheme.check_gptq_packing
    ),
    "awq": _Method(gptq_scheme.own_settings, gptq_scheme.awq_scheme, gptq_scheme.check_awq_packing),
    "compressed-tensors": _Method(
        compressed_scheme.own_settings,
        compressed_scheme.compressed_scheme,
        compressed_scheme.check_compressed_packing,
    ),
}
METHODS = tuple(_METHODS)


def method_of(settings: JsonObject) -> str:
    """AutoGPTQ's quantize_config.json names none: it knew only GPTQ."""
    return settings.text("quant_method", "method", default="gptq").lower()


def schemes_of(
    settings: JsonObject, method: str, names: Sequence[str]
) -> dict[str, Scheme | Excluded]:
    """What the settings say of each of the layers `names`, whether padmarlin can read it or not.

    Args:
        method: one of METHODS, in whose terms the settings are.

    Raises ValueError for settings that are not as the method defines them.
    """
    known = _METHODS[method]
    return {
        name: own if isinstance(own, Excluded) else known.scheme(own)
        for name, own in known.own_settings(settings, names).items()
    }


def common_scheme(settings: JsonObject, method: str) -> Scheme:
    """What the settings say of layers without a rule of their own; of compressed-tensors without
    such layers, what its first group says."""
    if method == "compressed-tensors":
        return compressed_scheme.compressed_scheme(compressed_scheme.common_group(settings))
    return _METHODS[method].scheme(settings)


def readable_method(settings: JsonObject) -> str:
    """One of METHODS; refuses others."""
    method = method_of(settings)
    if method not in _METHODS:
        key = settings.first("quant_method", "method")
        settings.refuse(key, " or ".join(map(repr, METHODS)), "requantize with one of these")
    return method


def readable_scheme(settings: JsonObject, name: str) -> Scheme:
    """How the layer `name` is quantized; refuses what padmarlin cannot read.

    Raises ValueError for a layer that is not quantized, another method or packing, and settings
    that are not as the method defines them.
    """
    method = _METHODS[readable_method(settings)]
    own = method.own_settings(settings, [name])[name]
    if isinstance(own, Excluded):
        got = f"{name!r}, which is not quantized"
        remedy = f"{own.why}; use the tensor {name}.weight as it is"
        refuse(settings.function, "name", got, "a quantized layer", remedy)
    method.check_packing(settings, own)
    return method.scheme(own)
