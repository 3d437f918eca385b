# SPDX-License-Identifier: Apache-2.0
"""Writing a converted checkpoint so that no moment leaves one that looks complete and is not.

Every file is written under another name, flushed to the disk and renamed; so a file that has its
name is whole. The index and config.json, without which nothing loads a checkpoint, come last. A
journal in the folder says whose unfinished work it is: the same command takes it up again, and as
what is written depends on the input alone, the result has the same bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from padmarlin import __version__
from padmarlin.convert.checksums import CHECKSUMS, verify_checksums, write_checksums
from padmarlin.convert.layer import Edit
from padmarlin.convert.refuse import refuse
from padmarlin.convert.shard import ShardPlan, plan_shard
from padmarlin.convert.stored import Checkpoint

JOURNAL = ".padmarlin-journal.json"
_PARTIAL = ".padmarlin-partial"
_CHUNK = 2**23
_SPARE_BYTES = 2**20
"""Beyond the files' own sizes: directories and the file system's records."""


class Progress(Protocol):
    """Is told how far a conversion is."""

    def start(self, total_bytes: int) -> None: ...

    def advance(self, file: str, done_bytes: int) -> None: ...


class Silent:
    """Nobody is told."""

    def start(self, total_bytes: int) -> None:
        pass

    def advance(self, file: str, done_bytes: int) -> None:
        pass


@dataclass(frozen=True)
class Job:
    """A conversion, decided in every detail before the first byte is written."""

    command: str
    options: Mapping[str, Any]
    source: Checkpoint
    target: Path
    edits: Mapping[str, Edit | None]  # by tensor; None: it is left out
    texts: Mapping[str, str]  # small files that are new or changed
    left_out: frozenset[str] = frozenset()  # files that are not copied
    checksum: bool = False
    shards: tuple[ShardPlan, ...] = field(init=False)
    copies: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        shards = tuple(plan_shard(file, self.edits) for file in self.source.files)
        object.__setattr__(self, "shards", shards)
        known = {shard.file.path.name for shard in shards} | set(self.texts) | self.left_out
        copies = (name for name in files_below(self.source.folder) if name not in known)
        # A journal or checksums in the source are about other bytes than the target's.
        kept = sorted(set(copies) - {JOURNAL, CHECKSUMS})
        object.__setattr__(self, "copies", tuple(kept))


def files_below(folder: Path) -> Iterator[str]:
    """Every file in a folder and its folders, by its path from there."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            if not path.is_file():
                refuse("IN", f"{path}, which is no file or leads nowhere", "files", "remove it")
            yield str(path.relative_to(folder))


def run(job: Job, progress: Progress | None = None) -> None:
    """Does the job, or goes on with it where an earlier run was stopped."""
    progress = progress or Silent()
    _check_places(job)
    if job.checksum:
        verify_checksums(job.source.folder)
    if _is_done(job):
        return
    with _journal(job):
        _check_disk(job)
        try:
            _write_all(job, progress)
        except ValueError:
            # The input is damaged: going on later would end in the same place.
            _discard(job)
            raise


def _is_done(job: Job) -> bool:
    """Whether the target is this job's result already, to the byte.

    A run that is killed after its last write and before its exit has finished without knowing it;
    the journal, which would tell, is gone by then. So the bytes themselves must tell.
    """
    if not job.target.is_dir() or (job.target / JOURNAL).exists():
        return False
    expected = {*_names(job), *([CHECKSUMS] if job.checksum else [])}
    found = {str(path.relative_to(job.target)) for path in job.target.rglob("*") if path.is_file()}
    if found != expected:
        return False
    contents: dict[str, Callable[[], Iterator[Any]]]
    contents = {shard.file.path.name: shard.chunks for shard in job.shards}
    contents |= {name: _reader(job.source.folder / name) for name in job.copies}
    contents |= {name: partial(iter, [text.encode()]) for name, text in job.texts.items()}
    if not all(_holds(job.target / name, chunks) for name, chunks in contents.items()):
        return False
    if not job.checksum:
        return True
    return (job.target / CHECKSUMS).read_text() == write_checksums(job.target, _names(job))


def _holds(path: Path, chunks: Callable[[], Iterator[Any]]) -> bool:
    with path.open("rb") as stream:
        same = all(stream.read(memoryview(chunk).nbytes) == chunk for chunk in chunks())
        return same and not stream.read(1)


def _write_all(job: Job, progress: Progress) -> None:
    sizes = {shard.file.path.name: shard.nbytes for shard in job.shards}
    sizes |= {name: (job.source.folder / name).stat().st_size for name in job.copies}
    progress.start(sum(sizes.values()))
    late = [name for name in job.copies if _is_late(name)]
    for shard in job.shards:
        name = shard.file.path.name
        _write(job.target, name, sizes[name], shard.chunks, progress)
    for name in job.copies:
        if name not in late:
            _write(job.target, name, sizes[name], _reader(job.source.folder / name), progress)
    for name in sorted([*job.texts, *late], key=lambda name: (_is_late(name), name)):
        if name in job.texts:
            _write_text(job.target, name, job.texts[name])
        else:
            _write(job.target, name, sizes[name], _reader(job.source.folder / name), progress)
    if job.checksum:
        _write_text(job.target, CHECKSUMS, write_checksums(job.target, _names(job)))


def _is_late(name: str) -> int:
    """What makes a folder look like a checkpoint is written last: 1 the index, 2 config.json."""
    return 2 if name == "config.json" else 1 if name.endswith(".index.json") else 0


def _names(job: Job) -> list[str]:
    return sorted({s.file.path.name for s in job.shards} | set(job.texts) | set(job.copies))


def _reader(path: Path) -> Callable[[], Iterator[bytes]]:
    def chunks() -> Iterator[bytes]:
        with path.open("rb", buffering=0) as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk

    return chunks


def _write_text(folder: Path, name: str, text: str) -> None:
    data = text.encode()
    # Always anew: it is small, and its size says little.
    (folder / name).unlink(missing_ok=True)
    _write(folder, name, len(data), lambda: iter([data]), Silent())


def _write(
    folder: Path,
    name: str,
    nbytes: int,
    chunks: Callable[[], Iterator[Any]],
    progress: Progress,
) -> None:
    """Writes a file whole or not at all. One that has its name already is whole."""
    path = folder / name
    if path.exists() and path.stat().st_size == nbytes:
        progress.advance(name, nbytes)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + _PARTIAL)
    with unfinished.open("wb") as stream:
        for chunk in chunks():
            stream.write(chunk)
            progress.advance(name, len(chunk))
        written = stream.tell()
        if written != nbytes:
            refuse(name, f"{written} bytes", f"{nbytes}", "it changed while it was being read")
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.replace(path)
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Makes the names in a folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_places(job: Job) -> None:
    source, target = job.source.folder.resolve(), job.target.resolve()
    if target == source or source in target.parents or target in source.parents:
        remedy = "name another folder: the checkpoint itself is never changed"
        refuse("OUT", repr(str(job.target)), f"a folder outside {job.source.folder}", remedy)
    if target.exists() and not target.is_dir():
        refuse("OUT", f"{str(job.target)!r}, a file", "a folder that is empty or not there yet")


@contextlib.contextmanager
def _journal(job: Job) -> Iterator[None]:
    """Holds the target for this job: no other may write there, also none of the same command."""
    statement = _statement(job)
    path = job.target / JOURNAL
    if job.target.exists() and any(job.target.iterdir()) and not path.exists():
        names = sorted(entry.name for entry in job.target.iterdir())
        # Killed before the journal had its name: there is nothing else yet.
        if names != [JOURNAL + _PARTIAL]:
            got = f"{str(job.target)!r}, which holds {len(names)} files ({names[0]}, ...)"
            remedy = "padmarlin overwrites nothing: name another folder or remove this one"
            refuse("OUT", got, "an empty folder, or one that is not there yet", remedy)
    if path.exists() and path.read_text() != statement:
        got = f"{str(job.target)!r}, where other work was begun"
        remedy = "remove the folder, or run the command that began it, on the same files"
        refuse("OUT", got, "the unfinished work of this very command", remedy)
    job.target.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _write_text(job.target, JOURNAL, statement)
    with path.open("rb") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            refuse("OUT", f"{str(job.target)!r}, in use", "no other padmarlin writing there")
        yield
        path.unlink(missing_ok=True)
        _flush_folder(job.target)


def _statement(job: Job) -> str:
    """What the journal says: two jobs with one statement write the same bytes."""
    inputs = {}
    for name in sorted(files_below(job.source.folder)):
        status = (job.source.folder / name).stat()
        inputs[name] = [status.st_size, status.st_mtime_ns]
    values = {
        "padmarlin": __version__,
        "command": job.command,
        "options": dict(job.options),
        "checksum": job.checksum,
        "input": inputs,
    }
    return json.dumps(values, indent=1) + "\n"


def _check_disk(job: Job) -> None:
    needed = _SPARE_BYTES + sum(len(text.encode()) for text in job.texts.values())
    for shard in job.shards:
        needed += shard.nbytes if not (job.target / shard.file.path.name).exists() else 0
    for name in job.copies:
        if not (job.target / name).exists():
            needed += (job.source.folder / name).stat().st_size
    free = shutil.disk_usage(job.target).free
    if free < needed:
        _discard_if_empty(job)
        got = f"{free / 1e9:.2f} GB free in {job.target}"
        refuse("OUT", got, f"{needed / 1e9:.2f} GB", "make room, or name a folder elsewhere")


def _discard(job: Job) -> None:
    """Takes back all that was written."""
    for name in [*_names(job), CHECKSUMS]:
        (job.target / name).unlink(missing_ok=True)
        (job.target / (name + _PARTIAL)).unlink(missing_ok=True)
    (job.target / JOURNAL).unlink(missing_ok=True)
    for place, _, _ in os.walk(job.target, topdown=False):
        with contextlib.suppress(OSError):
            Path(place).rmdir()


def _discard_if_empty(job: Job) -> None:
    if not any(entry.name != JOURNAL for entry in job.target.iterdir()):
        _discard(job)
