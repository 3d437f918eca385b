# SPDX-License-Identifier: Apache-2.0
"""The form of every refusal, and the argument checks that all layers share."""

from __future__ import annotations

import operator
import os
import stat
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

# Row numbers, group numbers and sizes travel in int32 tables and int arguments of kernels.
INT32_MAX = 2**31 - 1

_LONGEST_GOT = 500
"""Characters of what was got: a damaged file may hold megabytes where a number should be."""


def refusal(function: str, argument: str, got: object, expected: object, remedy: str = "") -> str:
    """The message of a refusal: who refuses what, what was expected, what to do about it.

    >>> refusal("repack_gptq", "qweight", "12 rows", "16 = ceil(k * bits / 32)", "pass k=...")
    'repack_gptq: qweight: got 12 rows, expected 16 = ceil(k * bits / 32); pass k=...'
    """
    got = str(got)
    if len(got) > _LONGEST_GOT:
        got = f"{got[:_LONGEST_GOT]}... ({len(got)} characters)"
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


def check_strided(function: str, argument: str, tensor: Tensor) -> None:
    """Refuses sparse, nested and opaque tensors."""
    if tensor.is_nested or tensor.layout != torch.strided:
        got = "a nested tensor" if tensor.is_nested else f"a tensor of layout {tensor.layout}"
        raise TypeError(refusal(function, argument, got, "a dense tensor, torch.strided"))


def check_data(function: str, argument: str, tensor: Tensor) -> None:
    """Refuses tensors whose values cannot be read: meta, fake, and what check_strided refuses."""
    check_strided(function, argument, tensor)
    if tensor.is_meta or isinstance(tensor, FakeTensor):
        got = "a meta tensor" if tensor.is_meta else "a FakeTensor"
        raise TypeError(refusal(function, argument, got, "a tensor with data"))


def check_device(function: str, device: Any, types: tuple[str, ...]) -> torch.device:
    """`device` as a torch.device of one of `types` that exists."""
    expected = " or ".join(f'"{kind}"' for kind in types)
    try:
        checked = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(refusal(function, "device", repr(device), expected)) from None
    if checked.type not in types:
        raise ValueError(refusal(function, "device", repr(str(checked)), expected))
    if checked.type == "cuda":
        count = torch.cuda.device_count()
        if (checked.index or 0) >= count:
            expected = f"one of the {count} CUDA devices that torch sees"
            remedy = (
                'use "cpu", or a torch with CUDA on a machine with a driver' if not count else ""
            )
            raise ValueError(refusal(function, "device", repr(str(checked)), expected, remedy))
    return checked


def check_regular_file(function: str, argument: str, path: str | Path) -> None:
    """Refuses pipes and devices, which may never answer or never end. What else is wrong with a
    file shows when it is read."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        got = f"{path}, of mode {stat.filemode(mode)}"
        raise ValueError(refusal(function, argument, got, "a regular file"))
