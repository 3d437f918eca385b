# SPDX-License-Identifier: Apache-2.0
"""``padmarlin unpad``: prints what padmarlin.convert.unpad_checkpoint did."""

from __future__ import annotations

import typer

from padmarlin.cli.converting import Checksum, Source, Target, converting, megabytes
from padmarlin.convert import unpad_checkpoint


def command(source: Source, target: Target, checksum: Checksum = False) -> None:
    """Take the padding of 'padmarlin pad' back, bit for bit.

    IN may have been quantized since: the record is padmarlin_padding.json, or else what config.json
    has of it.
    """
    with converting("unpad") as bar:
        report = unpad_checkpoint(source, target, checksum=checksum, progress=bar)
    for size in report.sizes:
        typer.echo(f"{'.'.join(size.path)}: {size.padded} -> {size.original}")
    typer.echo(
        f"{report.layers} layers unpadded, {megabytes(report.bytes_before)} -> "
        f"{megabytes(report.bytes_after)}: {target}"
    )
