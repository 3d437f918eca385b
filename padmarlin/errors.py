# SPDX-License-Identifier: Apache-2.0
"""The form of every refusal, and the argument checks that all layers share."""

from __future__ import annotations

import operator
from typing import Any

# Row numbers, group numbers and sizes travel in int32 tables and int arguments of kernels.
INT32_MAX = 2**31 - 1


def refusal(function: str, argument: str, got: object, expected: object, remedy: str = "") -> str:
    """The message of a refusal: who refuses what, what was expected, what to do about it.

    >>> refusal("repack_gptq", "qweight", "12 rows", "16 = ceil(k * bits / 32)", "pass k=...")
    'repack_gptq: qweight: got 12 rows, expected 16 = ceil(k * bits / 32); pass k=...'
    """
    message = f"{function}: {argument}: got {got}, expected {expected}"
    return f"{message}; {remedy}" if remedy else message


def check_int(function: str, argument: str, value: Any, minimum: int) -> int:
    """`value` as an int in [minimum, 2^31). Bools and floats are refused, numpy's ints are not."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        got = f"{value!r} of type {type(value).__name__}"
        raise TypeError(refusal(function, argument, got, "an int")) from None
    if not minimum <= number <= INT32_MAX:
        expected = f"an int from {minimum} to {INT32_MAX} (2^31 - 1)"
        raise ValueError(refusal(function, argument, number, expected))
    return number


def check_choice(function: str, argument: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Refuses a `value` that is none of `choices`; True is not 1, and 4.0 is not 4."""
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        expected = " or ".join(repr(choice) for choice in choices)
        raise ValueError(refusal(function, argument, repr(value), expected))


def check_group_size(function: str, group_size: Any) -> int:
    """`group_size` as an int: rows per quantization group, or -1: one group over all of K."""
    group_size = check_int(function, "group_size", group_size, -1)
    if group_size == 0:
        expected = "a positive int, or -1 for one group over all of K"
        raise ValueError(refusal(function, "group_size", 0, expected))
    return group_size
