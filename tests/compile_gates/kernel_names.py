# SPDX-License-Identifier: Apache-2.0
"""Mangled kernel names in words: "gemm_kernel half bits=4 two_field asymmetric=0 m_steps=1".

The names of template parameters and enumerators come from the sources, so a new kernel needs no
entry here. A name of another form stays mangled.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

CSRC = Path(__file__).resolve().parents[2] / "csrc"

# namespace padmarlin, the name, template arguments: enumerators, integers, booleans.
KERNEL = re.compile(r"_ZN9padmarlin(\d+)(\w+?)I((?:L(?:NS_\d+\w+?E|[a-z])n?\d+E)+)EEv")
ARGUMENT = re.compile(r"L(?:NS_\d+(\w+?)E|([a-z]))(n?\d+)E")


@functools.cache
def _sources() -> str:
    return "\n".join(
        path.read_text() for pattern in ("*.h", "*.cuh") for path in sorted(CSRC.rglob(pattern))
    )


@functools.cache
def _template_parameters(kernel: str) -> list[str]:
    found = re.search(rf"template <([^>]*)>\s*__global__[^;{{]*?\b{kernel}\(", _sources())
    return [] if found is None else [p.split()[-1] for p in found[1].split(",")]


@functools.cache
def _enumerators(enum: str) -> dict[int, str]:
    found = re.search(rf"enum class {enum}\b[^{{]*\{{([^}}]*)\}}", _sources())
    return {int(v): k for k, v in re.findall(r"k(\w+) = (\d+)", found[1] if found else "")}


def _snake_case(name: str) -> str:
    return re.sub(
        r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.removeprefix("k")
    ).lower()


def readable(symbol: str) -> str:
    found = KERNEL.match(symbol)
    if found is None or len(found[2]) != int(found[1]):
        return symbol
    arguments = ARGUMENT.findall(found[3])
    parameters = _template_parameters(found[2])
    if len(parameters) != len(arguments):
        return symbol
    words = [found[2]]
    for parameter, (enum, _, digits) in zip(parameters, arguments, strict=True):
        value = -int(digits[1:]) if digits.startswith("n") else int(digits)
        if not enum or value not in _enumerators(enum):
            words.append(f"{_snake_case(parameter)}={value}")
        else:
            words.append(_snake_case(_enumerators(enum)[value]))
    return " ".join(words)
