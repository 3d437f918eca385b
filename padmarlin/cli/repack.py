# SPDX-License-Identifier: Apache-2.0
"""``padmarlin repack``: prints what padmarlin.shards.repack_checkpoint did."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars

from padmarlin.checkpoint.repacked import INDEX, Repacked
from padmarlin.cli.manners import bad_input_refused
from padmarlin.errors import check_choice
from padmarlin.shards import repack_checkpoint

_DTYPES = {"auto": None, "float16": torch.float16, "bfloat16": torch.bfloat16}


class _Bar:
    """A bar on stderr while a terminal shows it."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bars.add_task("repack", total=None)

    def __enter__(self) -> _Bar:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def start(self, total_bytes: int) -> None:
        self._bars.update(self._task, total=total_bytes)

    def advance(self, file: str, done_bytes: int) -> None:
        self._bars.update(self._task, advance=done_bytes, description=file)


def command(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="GPTQ, AWQ or compressed-tensors checkpoint.")
    ],
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="A directory that is new, or was interrupted."),
    ],
    tp: Annotated[int, typer.Option(help="For how many ranks.")],
    dtype: Annotated[
        str, typer.Option(help="Of the weights: float16, bfloat16, or auto: the scales'.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="Where to repack: cpu or cuda.")] = "cpu",
    others: Annotated[
        bool,
        typer.Option("--others/--no-others", help="Copy embeddings, norms and biases, too."),
    ] = True,
) -> None:
    """Repack a checkpoint for N ranks, so that workers load without repacking.

    padmarlin.load_weight(OUT, name, shard=...) gives what it gives for IN, and only reads. Layer
    by layer; an interrupted run goes on where it was; nothing is overwritten.
    """
    with bad_input_refused(), _Bar() as bar:
        check_choice("repack", "--dtype", dtype, tuple(_DTYPES))
        done = repack_checkpoint(
            source,
            out,
            tp=tp,
            dtype=_DTYPES[dtype],
            device=device,
            others=others,
            progress=bar,
        )
    typer.echo(_summary(done))


def _summary(done: Repacked) -> str:
    files = {file for layer in done.layers.values() for file in layer.files}
    size = sum((done.directory / file).stat().st_size for file in files)
    lines = [
        f"{done.directory}: {len(done.layers)} layers for {done.tp} rank(s), {size / 1e9:.3f} GB "
        f"in {len(files)} files; index {INDEX}"
    ]
    if done.others:
        lines.append(f"{len(done.others)} other tensors copied as they are")
    whole = [layer for layer in done.layers.values() if layer.axis is None]
    for layer in whole:
        lines.append(
            f"stored whole: {layer.name}, {layer.k} x {layer.n}: {done.tp} does not divide it"
        )
    return "\n".join(lines)
