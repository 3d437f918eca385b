# SPDX-License-Identifier: Apache-2.0
"""How ``load_weight`` refuses."""

from __future__ import annotations

from typing import NoReturn

from padmarlin.errors import refusal


def refuse(argument: str, got: object, expected: str, remedy: str = "") -> NoReturn:
    """Raises the ValueError of a checkpoint that cannot be loaded."""
    raise ValueError(refusal("load_weight", argument, got, expected, remedy)) from None
