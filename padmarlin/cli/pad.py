# SPDX-License-Identifier: Apache-2.0
"""``padmarlin pad``: prints what padmarlin.convert.pad_checkpoint did."""

from __future__ import annotations

from typing import Annotated

import typer

from padmarlin.cli.converting import Checksum, Source, Target, converting, megabytes, print_notes
from padmarlin.convert import pad_checkpoint


def command(
    source: Source,
    target: Target,
    tp: Annotated[int, typer.Option(help="Tensor-parallel size; its divisors work as well.")],
    multiple: Annotated[
        int | None,
        typer.Option(help="A rank's share is a multiple of this.  [default: 128, Marlin's tile]"),
    ] = None,
    group_size: Annotated[
        int | None,
        typer.Option(help="Of the quantization to come, if IN has none.  [default: 128]"),
    ] = None,
    checksum: Checksum = False,
) -> None:
    """Pad a checkpoint's MLPs so that stock engines can cut them.

    The new weights dequantize to exactly 0: the model computes what it did. GPTQ, AWQ,
    compressed-tensors, fp16, bf16 and fp32; experts too. 'padmarlin unpad' takes it back, bit for
    bit, also after a quantization in between.
    """
    with converting("pad") as bar:
        report = pad_checkpoint(
            source,
            target,
            tp=tp,
            multiple=multiple,
            group_size=group_size,
            checksum=checksum,
            progress=bar,
        )
    for size in report.sizes:
        change = f"{size.original} -> {size.padded}" if size.padded != size.original else "fits"
        typer.echo(f"{'.'.join(size.path)}: {change} ({size.padded // tp} per rank at TP={tp})")
    growth = report.bytes_after / report.bytes_before - 1
    typer.echo(
        f"{report.layers} layers padded, {megabytes(report.bytes_before)} -> "
        f"{megabytes(report.bytes_after)} (+{growth:.1%}): {target}"
    )
    print_notes(report.left)
