# SPDX-License-Identifier: Apache-2.0
"""The ``padmarlin`` command. A verb is a module of this package, registered in the table below."""

from __future__ import annotations

from typing import Annotated

import typer

from padmarlin import __version__
from padmarlin.cli import env, fold, pad, plan, repack, tradeoff, unpad, verify
from padmarlin.cli.manners import Verbs

app = typer.Typer(
    name="padmarlin",
    help="INT4/INT8 weights of any shape and any tensor-parallel cut.",
    epilog="Exit codes: 0 done, 1 a check failed, 2 bad input. docs/cli.md has it all.",
    cls=Verbs,
    add_completion=False,
    rich_markup_mode=None,
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
app.command("plan", short_help="What tensor parallelism makes of a model.")(plan.command)
app.command("tradeoff", short_help="What bits and group sizes mean, before quantizing.")(
    tradeoff.command
)
app.command("pad", short_help="Pad MLPs so that stock engines can cut them; lossless.")(pad.command)
app.command("unpad", short_help="Take a padding back, bit for bit.")(unpad.command)
app.command("fold", short_help="Take act-order out of the MLPs' output layers.")(fold.command)
app.command("repack", short_help="Repack a checkpoint for N ranks.")(repack.command)
app.command("verify", short_help="Run every layer over N ranks against a reference.")(
    verify.command
)
app.command("env", short_help="Print versions, devices and what was compiled.")(env.command)


def main() -> None:
    """The entry point of the console script."""
    app()
