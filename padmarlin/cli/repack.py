# SPDX-License-Identifier: Apache-2.0
"""``padmarlin repack``: prints what padmarlin.shards.repack_checkpoint did."""

from __future__ import annotations

from typing import Annotated

import torch
import typer

from padmarlin.checkpoint.repacked import INDEX, Repacked
from padmarlin.cli.converting import Checksum, Source, Target, converting, megabytes
from padmarlin.cli.grouped import grouped
from padmarlin.errors import check_choice
from padmarlin.shards import cut_axis, repack_checkpoint, why_whole

_DTYPES = {"auto": None, "float16": torch.float16, "bfloat16": torch.bfloat16}


def command(
    source: Source,
    out: Target,
    tp: Annotated[int, typer.Option(help="For how many ranks.")],
    dtype: Annotated[
        str, typer.Option(help="Of the weights: float16, bfloat16, or auto: the scales'.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="Where to repack: cpu or cuda.")] = "cpu",
    others: Annotated[
        bool,
        typer.Option("--others/--no-others", help="Copy embeddings, norms and biases, too."),
    ] = True,
    checksum: Checksum = False,
) -> None:
    """Repack a checkpoint for N ranks, so that workers load without repacking.

    padmarlin.load_weight(OUT, name, shard=...) gives what it gives for IN, and only reads. Layer
    by layer; an interrupted run goes on where it was; nothing is overwritten.
    """
    with converting("repack") as bar:
        check_choice("repack", "--dtype", dtype, tuple(_DTYPES))
        done = repack_checkpoint(
            source,
            out,
            tp=tp,
            dtype=_DTYPES[dtype],
            device=device,
            others=others,
            checksum=checksum,
            progress=bar,
        )
    typer.echo(_summary(done))


def _summary(done: Repacked) -> str:
    files = {file for layer in done.layers.values() for file in layer.files}
    size = sum((done.directory / file).stat().st_size for file in files)
    ranks = f"{done.tp} rank{'s' if done.tp > 1 else ''}"
    lines = [
        f"{done.directory}: {len(done.layers)} layers for {ranks}, {megabytes(size)} in "
        f"{len(files)} files; index {INDEX}"
    ]
    if done.others:
        lines.append(f"{len(done.others)} other tensors copied as they are")
    whole = [layer for layer in done.layers.values() if layer.axis is None]
    reasons = [
        (layer.name, why_whole(cut_axis(layer.name), layer.k, layer.n, done.tp) or "")
        for layer in whole
    ]
    lines += [f"stored whole: {line}" for line in grouped(reasons)]
    return "\n".join(lines)
