# SPDX-License-Identifier: Apache-2.0
"""``repack_checkpoint``: every rank's part of every quantized layer, repacked, in files of its own.

Layer by layer and rank by rank: memory holds one rank's layers up to the size of a file. The bytes
depend on the input and the options alone, so an interrupted run that goes on ends in the same ones.
"""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch

from padmarlin.checkpoint.reader import CheckpointReader
from padmarlin.checkpoint.repacked import INDEX, JOURNAL, REPACK_VERSION, Repacked
from padmarlin.convert.checksums import verify_checksums
from padmarlin.convert.job import Progress, Silent
from padmarlin.errors import check_int, refusal
from padmarlin.layout import FORMAT_VERSION
from padmarlin.models.axes import cut_axis, why_whole
from padmarlin.shards.files import DifferentError, compare
from padmarlin.shards.journal import Finished, Journal, open_journal
from padmarlin.shards.refuse import refuse
from padmarlin.shards.work import PlannedLayer, Work

FILE_BYTES = 1 << 29
"""A file is closed as soon as it holds this much: what is gathered in memory stays near it."""

_DTYPES = {torch.float16: "float16", torch.bfloat16: "bfloat16", None: None}


def repack_checkpoint(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    tp: int,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    others: bool = True,
    checksum: bool = False,
    file_bytes: int = FILE_BYTES,
    progress: Progress | None = None,
) -> Repacked:
    """Repacks a checkpoint for `tp` ranks: ``load_weight(out, name, shard=...)`` only reads then.

    Layers that end a block (o_proj, down_proj and their like) are cut along K, all others along N;
    a layer whose size `tp` does not divide is stored whole, for every rank. The other tensors
    (embeddings, norms, biases) are copied as they are into files of their own, and so is every
    small file of the directory.

    Args:
        source: a GPTQ, AWQ or compressed-tensors checkpoint directory, as for ``load_weight``.
        out: a directory that is new, empty, or left by the same call when it was interrupted; if
            that was finished, its bytes are compared and nothing is written.
        dtype: of the weights, as for ``load_weight``.
        device: where layers are repacked.
        others: False leaves out the tensors that are not quantized.
        checksum: verify the source's SHA256SUMS, if there is one, and write that of `out`.
        file_bytes: a file is closed when it holds that much.

    Raises:
        ValueError: a damaged checkpoint, too little disk space, an `out` that holds anything else.
    """
    directory, target = _checked_places(source, out)
    check_int("repack", "tp", tp, 1)
    check_int("repack", "file_bytes", file_bytes, 1)
    if dtype not in _DTYPES:
        raise TypeError(refusal("repack", "dtype", dtype, "torch.float16, torch.bfloat16 or None"))
    if checksum:
        verify_checksums(directory)
    reader = CheckpointReader(directory)
    layers = [_planned(reader, name, tp) for name in reader.layers()]
    if not layers:
        remedy = "quantize it first, or use its tensors as they are"
        refuse("IN", f"{directory}, which has no quantized layers", "some", remedy)
    request = {
        "repack_version": REPACK_VERSION,
        "format_version": FORMAT_VERSION,
        "tp": tp,
        "dtype": _DTYPES[dtype],
        "others": others,
        "checksum": checksum,
        "file_bytes": file_bytes,
        "source": [_identity(file) for file in sorted(directory.iterdir()) if file.is_file()],
    }
    work = Work(reader, target, Finished(), tp, layers, file_bytes, torch.device(device), dtype)
    work.progress = progress or Silent()
    if not _is_done(work, others, checksum):
        with open_journal(target, request) as journal:
            _do(work, journal, others, checksum)
    finished = Repacked.read(target)
    assert finished is not None
    return finished


def _is_done(work: Work, others: bool, checksum: bool) -> bool:
    """Whether the directory is the result already, to the byte.

    A run that is killed after its last write has finished without knowing it, and the journal,
    which would tell, is gone by then. So the bytes themselves must tell.
    """
    if not (work.target / INDEX).exists() or (work.target / JOURNAL).exists():
        return False
    try:
        expected = replace(work, put=compare).run(others, checksum)
    except DifferentError:
        return False
    return expected == {path.name for path in work.target.iterdir()}


def _do(work: Work, journal: Journal, others: bool, checksum: bool) -> None:
    work.journal = journal
    try:
        if not (work.target / INDEX).exists():  # else interrupted between the last two steps
            work.check_disk(others)
            work.run(others, checksum)
        journal.remove()
    except OSError as error:
        _refuse_disk(error, work.target)
    except ValueError:
        # The input is damaged: going on later would end in the same place.
        journal.discard()
        raise


def _checked_places(source: Any, out: Any) -> tuple[Path, Path]:
    directory, target = Path(source), Path(out)
    if not directory.is_dir():
        refuse("IN", repr(str(directory)), "an existing directory")
    if target.exists() and not target.is_dir():
        refuse("OUT", f"the file {target}", "a directory that is new or empty")
    inside = target.resolve()
    if directory.resolve() in (inside, *inside.parents):
        refuse("OUT", str(target), "a directory outside of IN")
    if Repacked.read(directory) is not None:
        refuse("IN", f"{directory}, which is repacked already", "the original checkpoint")
    return directory, target


def _planned(reader: CheckpointReader, name: str, tp: int) -> PlannedLayer:
    k, n = reader.shape(name)
    axis = cut_axis(name)
    return PlannedLayer(name, k, n, None if why_whole(axis, k, n, tp) else axis)


def _identity(file: Path) -> list[object]:
    state = file.stat()
    return [file.name, state.st_size, state.st_mtime_ns]


def _refuse_disk(error: OSError, target: Path) -> NoReturn:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        refuse("OUT", error, "a directory that can be written")
    remedy = "free some space and run the same command again: it goes on from here"
    refuse("OUT", f"no space left for {target}", "more space", remedy)
