# SPDX-License-Identifier: Apache-2.0
"""How conversions refuse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from padmarlin.errors import refusal


class ConversionError(ValueError):
    """A refusal that does not name its function yet: `refusing` puts that in front."""


def refuse(argument: str, got: object, expected: object, remedy: str = "") -> NoReturn:
    """Refuses an input of whichever conversion runs."""
    raise ConversionError(refusal("", argument, got, expected, remedy)) from None


@contextmanager
def refusing(function: str) -> Iterator[None]:
    """Refusals, also those of the readers of other parts, in the name of `function`."""
    try:
        yield
    except ValueError as error:
        # A refusal is "function: argument: ..."; the conversions' own begin with ": ".
        _, colon, rest = str(error).partition(": ")
        message = f"{function}: {rest}" if colon else f"{function}: {error}"
        raise ValueError(message) from error
