# SPDX-License-Identifier: Apache-2.0
"""Writing the files of a repacked directory: the ranks' in turn, then what all ranks share, then
the index. Memory holds one rank's layers up to the size of a file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from padmarlin.checkpoint.reader import CheckpointReader
from padmarlin.checkpoint.repacked import INDEX, REPACK_VERSION
from padmarlin.convert.checksums import CHECKSUMS, write_checksums
from padmarlin.convert.job import Progress, Silent
from padmarlin.layout import FORMAT_VERSION, TILE, round_up
from padmarlin.partition import Shard
from padmarlin.shards.files import Bytes, Outgoing, contents, safetensors, write
from padmarlin.shards.journal import Finished
from padmarlin.shards.refuse import refuse

_CHUNK_BYTES = 1 << 26
_NOT_COPIED = (".safetensors", ".safetensors.index.json", CHECKSUMS)


@dataclass(frozen=True)
class PlannedLayer:
    name: str
    k: int
    n: int
    axis: str | None  # None: whole on every rank

    def padded_size(self, tp: int) -> int:
        """Weights of all ranks with their padding, at most; act-order may need more."""
        if self.axis is None:
            return round_up(self.k, TILE) * round_up(self.n, TILE)
        k = self.k // tp if self.axis == "k" else self.k
        n = self.n // tp if self.axis == "n" else self.n
        front = TILE if self.axis == "k" and tp > 1 else 0
        return tp * round_up(k + front, TILE) * round_up(n, TILE)


class _Item(NamedTuple):
    """Something that goes into one file: a layer's part, or a tensor."""

    name: str
    tensors: Callable[[], list[Outgoing]]


Places = dict[str, list[str]]
"""The files of each item, in the order of ranks."""


def _files(places: Places) -> set[str]:
    return {file for files in places.values() for file in files}


@dataclass
class Work:
    """The files of one directory."""

    reader: CheckpointReader
    target: Path
    journal: Finished
    tp: int
    layers: list[PlannedLayer]
    file_bytes: int
    device: torch.device
    dtype: torch.dtype | None
    progress: Progress = field(default_factory=Silent)
    put: Callable[[Path, Iterable[Bytes]], None] = write

    def run(self, others: bool, checksum: bool) -> set[str]:
        """Everything that the journal does not have yet; the names of all files there are then."""
        self.progress.start(self._size(others))
        places: Places = {}
        for rank in range(self.tp):
            parts = [self._part(layer, rank) for layer in self.layers if layer.axis is not None]
            self._write_set(f"rank-{rank}-of-{self.tp}", parts, places)
        whole = [self._part(layer, None) for layer in self.layers if layer.axis is None]
        self._write_set("whole", whole, places)
        copied: Places = {}
        if others:
            self._write_set("other", [self._copied(n) for n in self.reader.others()], copied)
        copies = self._copy_small_files()
        if checksum:
            names = sorted({*_files(places), *_files(copied), *copies})
            sums = write_checksums(self.target, names)
            self.put(self.target / CHECKSUMS, [sums.encode()])
            copies.append(CHECKSUMS)
        index = json.dumps(self._index(places, copied), indent=1) + "\n"
        self.put(self.target / INDEX, [index.encode()])
        return {*_files(places), *_files(copied), *copies, INDEX}

    def _copy_small_files(self) -> list[str]:
        """Everything in the directory that holds no tensors; its name there."""
        names = [file.name for file in sorted(self.reader.directory.iterdir()) if file.is_file()]
        kept = [name for name in names if not name.endswith(_NOT_COPIED)]
        for name in kept:
            self.put(self.target / name, contents(self.reader.directory / name))
        return kept

    def check_disk(self, others: bool) -> None:
        """Refuses where what is not written yet will not fit."""
        done = [self.target / file for file in self.journal.done]
        needed = self._size(others) - sum(file.stat().st_size for file in done if file.exists())
        free = shutil.disk_usage(self.target).free
        if free < needed:
            got = f"{free / 1e9:.2f} GB free for {self.target}"
            refuse("OUT", got, f"about {needed / 1e9:.2f} GB", "free some space")

    def _size(self, others: bool) -> int:
        """About how many bytes there will be."""
        stored = sum(file.stat().st_size for file in self.reader.directory.glob("*.safetensors"))
        if not others:
            stored -= sum(self.reader.stored(name).nbytes for name in self.reader.others())
            self.reader.release()
        padded = sum(layer.padded_size(self.tp) for layer in self.layers)
        return int(stored * max(padded / sum(layer.k * layer.n for layer in self.layers), 1))

    def _write_set(self, prefix: str, items: list[_Item], places: Places) -> None:
        """Numbered files of the items in their order."""
        position, number = 0, 1
        while position < len(items):
            file = f"{prefix}-{number:05d}.safetensors"
            held = self._finished(file) or self._write_file(file, items[position:])
            for name in held:
                places.setdefault(name, []).append(file)
            position, number = position + len(held), number + 1

    def _finished(self, file: str) -> list[str] | None:
        """What a file holds that an earlier run finished."""
        held = self.journal.done.get(file)
        if held is not None and not (self.target / file).exists():
            return None
        if held is not None:
            self.progress.advance(file, (self.target / file).stat().st_size)
        return held

    def _write_file(self, file: str, items: list[_Item]) -> list[str]:
        """A file of the first of the items, as many as it takes to fill it; their names."""
        tensors: list[Outgoing] = []
        held: list[str] = []
        size = 0
        for item in items:
            made = item.tensors()
            tensors += made
            held.append(item.name)
            made_bytes = sum(tensor.nbytes for tensor in made)
            self.progress.advance(item.name, made_bytes)
            size += made_bytes
            if size >= self.file_bytes:
                break
        self.put(self.target / file, safetensors(tensors))
        self.journal.add(file, held)
        return held

    def _part(self, layer: PlannedLayer, rank: int | None) -> _Item:
        """A rank's part of a layer, or all of it."""
        cut = layer.axis is not None and rank is not None
        shard = Shard(layer.axis, rank, self.tp) if cut else None  # type: ignore[arg-type]

        def tensors() -> list[Outgoing]:
            weight = self.reader.load(layer.name, shard, self.device, self.dtype)
            state = weight.state_dict(f"{layer.name}.")
            return [Outgoing.of(name, tensor) for name, tensor in state.items()]

        return _Item(layer.name, tensors)

    def _copied(self, name: str) -> _Item:
        def tensors() -> list[Outgoing]:
            stored = self.reader.stored(name)
            self.reader.release()
            shape, size = stored.shape, stored.nbytes
            return [Outgoing(name, stored.dtype, shape, size, lambda: self._chunks(name))]

        return _Item(name, tensors)

    def _chunks(self, name: str) -> Iterator[Tensor]:
        """A tensor's data by rows. Its file is closed after each part: a mapped file counts as
        memory, and an embedding is larger than any layer."""
        stored = self.reader.stored(name)
        if not stored.shape:
            yield stored.read()
            return
        rows, *rest = stored.shape
        step = max(_CHUNK_BYTES * rows // max(stored.nbytes, 1), 1)
        for start in range(0, rows, step):
            whole_rows = [(0, size) for size in rest]
            part = self.reader.stored(name).read((start, min(start + step, rows)), *whole_rows)
            self.reader.release()
            yield part

    def _index(self, places: Places, copied: Places) -> dict[str, object]:
        layers = {
            layer.name: {
                "axis": layer.axis,
                "k": layer.k,
                "n": layer.n,
                "files": places[layer.name],
            }
            for layer in self.layers
        }
        return {
            "repack_version": REPACK_VERSION,
            "format_version": FORMAT_VERSION,
            "tp": self.tp,
            "dtype": None if self.dtype is None else str(self.dtype).removeprefix("torch."),
            "quantization": dict(self.reader.settings.values),
            "layers": layers,
            "others": {name: files[0] for name, files in copied.items()},
        }
