# SPDX-License-Identifier: Apache-2.0
"""A bar with rate and time left, on a terminal only: what is piped gets no word of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


class Bar:
    """Shows a conversion's progress on stderr."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._task: TaskID | None = None

    def start(self, total_bytes: int) -> None:
        self._task = self._shown.add_task("", total=total_bytes)

    def advance(self, file: str, done_bytes: int) -> None:
        if self._task is not None:
            self._shown.update(self._task, advance=done_bytes, description=file)


@contextmanager
def progress_bar() -> Iterator[Bar]:
    """A bar while the block runs; none where stderr is no terminal."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as shown:
        yield Bar(shown)
