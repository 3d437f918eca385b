# SPDX-License-Identifier: Apache-2.0
"""What an interrupted repack has finished, so that the same command goes on from there.

A line per finished file. The first line says what is being made of what: another repack must not
go on with these files.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from padmarlin.checkpoint.repacked import INDEX, JOURNAL
from padmarlin.shards.files import UNFINISHED, flush_directory, write
from padmarlin.shards.refuse import refuse


class Finished:
    """What is finished: nothing, and nobody takes notes."""

    def __init__(self) -> None:
        self.done: dict[str, list[str]] = {}  # finished file -> what it holds

    def add(self, file: str, items: list[str]) -> None:
        pass


class Journal(Finished):
    """The journal of a directory, held by one process."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._path = directory / JOURNAL
        for line in self._path.read_bytes().split(b"\n")[1:-1]:  # the last line may be torn
            entry = json.loads(line)
            self.done[entry["file"]] = entry["items"]
        whole = self._path.read_bytes().rpartition(b"\n")[0] + b"\n"
        os.truncate(self._path, len(whole))

    def add(self, file: str, items: list[str]) -> None:
        with self._path.open("ab") as stream:
            stream.write(json.dumps({"file": file, "items": items}).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.done[file] = items

    def discard(self) -> None:
        """Takes away what was finished, then itself, and the directory if it is empty."""
        for file in self.done:
            (self._path.parent / file).unlink(missing_ok=True)
        self._path.unlink()
        with suppress(OSError):
            self._path.parent.rmdir()

    def remove(self) -> None:
        self._path.unlink()
        flush_directory(self._path.parent)


@contextmanager
def open_journal(directory: Path, request: Mapping[str, Any]) -> Iterator[Journal]:
    """The journal of an empty or interrupted directory; refuses any other directory."""
    line = json.dumps(request, sort_keys=True)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / JOURNAL
    if not path.exists():
        first = path.with_name(path.name + UNFINISHED)
        found = sorted(entry.name for entry in directory.iterdir() if entry != first)
        if found:
            what = "a finished repack" if INDEX in found else f"{found[0]!r} among other files"
            remedy = "name another directory; nothing is overwritten"
            refuse("OUT", f"{directory}, which holds {what}", "a new or empty directory", remedy)
        write(path, [line.encode() + b"\n"])
    with path.open("rb") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            refuse("OUT", f"{directory}, which another process is writing", "one at a time")
        if held.readline().decode() != line + "\n":
            remedy = "finish that one, or remove the directory"
            got = f"{directory}, where a repack of other files or with other options stopped"
            refuse("OUT", got, "the same command", remedy)
        for leftover in directory.glob(f"*{UNFINISHED}"):
            leftover.unlink()
        yield Journal(directory)
