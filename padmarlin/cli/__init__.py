# SPDX-License-Identifier: Apache-2.0
"""The ``padmarlin`` command. A verb is a module of this package, registered in the table below."""

from __future__ import annotations

from typing import Annotated

import typer

from padmarlin import __version__
from padmarlin.cli import env

app = typer.Typer(
    name="padmarlin",
    help="INT4/INT8 weights of any shape and any tensor-parallel cut.",
    no_args_is_help=True,
    add_completion=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"padmarlin {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options before the verb; a callback also keeps typer from merging a lone verb into it."""


# The verbs, in the order of --help.
app.command("env")(env.command)


def main() -> None:
    """The entry point of the console script."""
    app()
