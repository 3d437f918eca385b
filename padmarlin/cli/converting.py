# SPDX-License-Identifier: Apache-2.0
"""What the verbs that write a checkpoint have in common: their arguments and their last lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from padmarlin.cli.manners import BAD_INPUT, bad_input_refused, complain
from padmarlin.cli.progress import Bar, progress_bar

Source = Annotated[Path, typer.Argument(metavar="IN", help="The folder of a checkpoint.")]
Target = Annotated[
    Path, typer.Argument(metavar="OUT", help="A new folder, or an unfinished one of this command.")
]
Checksum = Annotated[
    bool, typer.Option("--checksum", help="Verify IN's SHA256SUMS, if any, and write OUT's.")
]


@contextmanager
def converting(verb: str) -> Iterator[Bar]:
    """A progress bar; bad input and a disk that fails or is full take one line."""
    with bad_input_refused(), progress_bar() as bar:
        try:
            yield bar
        except OSError as error:
            complain(f"padmarlin {verb}: {error}; the same command goes on from here")
            raise typer.Exit(BAD_INPUT) from None


def print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        typer.echo(f"note: {note}")


def megabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"
