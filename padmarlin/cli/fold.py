# SPDX-License-Identifier: Apache-2.0
"""``padmarlin fold``: prints what padmarlin.convert.fold_checkpoint did."""

from __future__ import annotations

import typer

from padmarlin.cli.converting import Checksum, Source, Target, converting, print_notes
from padmarlin.convert import fold_checkpoint


def command(source: Source, target: Target, checksum: Checksum = False) -> None:
    """Take act-order out of the MLPs' output layers, for good and without loss.

    Rows of down_proj are sorted by group, and the columns of gate and up with them. A cut over
    tensor-parallel ranks then costs what a plain one does.
    """
    with converting("fold") as bar:
        report = fold_checkpoint(source, target, checksum=checksum, progress=bar)
    typer.echo(f"layers folded: {report.folded}; written to {target}")
    if report.act_order:
        typer.echo(f"act-order stays in {', '.join(report.kept)}: the settings still say so")
    else:
        typer.echo("no layer has act-order any more: the settings say so")
    print_notes(report.left)
