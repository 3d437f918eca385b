# SPDX-License-Identifier: Apache-2.0
"""How ``repack_checkpoint`` refuses."""

from __future__ import annotations

from typing import NoReturn

from padmarlin.errors import refusal


def refuse(argument: str, got: object, expected: str, remedy: str = "") -> NoReturn:
    raise ValueError(refusal("repack", argument, got, expected, remedy)) from None
