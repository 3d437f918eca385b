# SPDX-License-Identifier: Apache-2.0
"""How every verb behaves: one line for bad input, exit codes, and output that can be piped.

0: done, and what was checked holds. 1: done, and what was checked does not hold. 2: bad input: an
unknown verb or option, a file that is not what it should be. 130: interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup

CHECK_FAILED = 1
BAD_INPUT = 2

WIDTH = 100
"""Columns of every table; what is piped has as many, whatever the terminal's."""


class Verbs(TyperGroup):
    """The command group: without a verb it prints its help, and an error takes one line."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        # "python -m padmarlin" is the same command.
        prog_name = prog_name or "padmarlin"
        arguments = list(sys.argv[1:] if args is None else args) or ["--help"]
        try:
            code = super().main(
                arguments, prog_name, complete_var, False, windows_expand_args, **extra
            )
        except Exception as error:
            # typer bundles click or imports it, by version: its errors are known by what they can.
            message = getattr(error, "format_message", None)
            if not standalone_mode or message is None:
                raise
            verb = getattr(getattr(error, "ctx", None), "command_path", "padmarlin")
            complain(f"{verb}: {_one_line(message())} ('{verb} --help' says more)")
            code = BAD_INPUT
        if not standalone_mode:
            return code
        sys.exit(code if isinstance(code, int) else 0)


def _one_line(message: str) -> str:
    return " ".join(message.split()).rstrip(".")


def complain(message: str) -> None:
    """A line on stderr."""
    typer.echo(message, err=True)


@contextmanager
def bad_input_refused() -> Iterator[None]:
    """Refusals of this package become one line and exit code 2; anything else is a bug and shows
    where it is."""
    try:
        yield
    except (ValueError, TypeError) as error:
        complain(f"padmarlin {_one_line(str(error))}")
        raise typer.Exit(BAD_INPUT) from None


def console() -> Console:
    """Where tables go: no colours and 100 columns when piped, at most 100 in a terminal."""
    is_terminal = sys.stdout.isatty()
    width = min(Console().width, WIDTH) if is_terminal else WIDTH
    return Console(highlight=False, width=width, force_terminal=is_terminal)
