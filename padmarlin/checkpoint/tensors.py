# SPDX-License-Identifier: Apache-2.0
"""The tensors of a checkpoint directory: found by name, checked by header, read by ranges."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from padmarlin.checkpoint.refuse import refuse
from padmarlin.errors import check_regular_file
from padmarlin.jsonfile import read_object

Range = tuple[int, int]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor on disk: dtype and shape are known, the data are not read yet."""

    name: str
    file: Path
    dtype: str  # in safetensors' words: "I32", "F16"
    shape: tuple[int, ...]
    view: Any  # what safetensors reads from when indexed

    @property
    def nbytes(self) -> int:
        bits = re.search(r"\d+", self.dtype)
        return prod(self.shape) * (int(bits[0]) if bits else 8) // 8  # BOOL has no number

    def check(self, dtypes: tuple[str, ...], shape: tuple[int | None, ...], meaning: str) -> None:
        """Refuses other dtypes and shapes; None stands for any positive size, and ``meaning`` is
        the shape in the format's terms."""
        fits = len(shape) == len(self.shape) and all(
            size > 0 if wanted is None else size == wanted
            for size, wanted in zip(self.shape, shape, strict=True)
        )
        if not fits or self.dtype not in dtypes:
            sizes = ", ".join("any" if size is None else str(size) for size in shape)
            refuse(
                f"tensor {self.name!r} in {self.file.name}",
                f"{self.dtype} {self.shape}",
                f"{' or '.join(dtypes)} ({sizes}) = {meaning}",
                "check the checkpoint's files and its quantization settings",
            )

    def read(self, *ranges: Range) -> Tensor:
        """The part within one range per dimension; no other part is read from disk."""
        with _damage_refused(self.file):
            return self.view[tuple(slice(start, stop) for start, stop in ranges)]


class TensorFiles:
    """The safetensors files of a directory, each opened when it is first needed."""

    def __init__(self, directory: Path, open_files: ExitStack) -> None:
        self._directory = directory
        self._open_files = open_files
        self._readers: dict[Path, Any] = {}
        self._files = self._locate()

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def __getitem__(self, name: str) -> StoredTensor:
        if name not in self._files:
            remedy = "download the checkpoint again: its files are not complete"
            refuse("checkpoint_dir", f"no tensor {name!r} in {self._directory}", "one", remedy)
        file = self._files[name]
        with _damage_refused(file):
            view = self._reader(file).get_slice(name)
            return StoredTensor(name, file, str(view.get_dtype()), tuple(view.get_shape()), view)

    def names(self) -> list[str]:
        return list(self._files)

    def release(self) -> None:
        """Closes the files that are open. What was read of them stays in memory, as far as there is
        room, for as long as they are mapped; each is opened again when it is needed."""
        self._readers.clear()
        self._open_files.close()

    def check_layer(self, name: str) -> None:
        """Refuses the name of a layer that has no tensors."""
        layers = {tensor.rpartition(".")[0] for tensor in self._files}
        if name in layers:
            return
        # A name may lack its beginning: compare as many last parts as it has.
        parts = name.count(".") + 1
        tails: dict[str, str] = {}
        for layer in sorted(layers):
            tails.setdefault(".".join(layer.split(".")[-parts:]), layer)
        close = [tails[tail] for tail in difflib.get_close_matches(name, tails, n=3)]
        remedy = f"close matches: {', '.join(close)}" if close else ""
        refuse("name", repr(name), f"one of the {len(layers)} layers in {self._directory}", remedy)

    def _locate(self) -> dict[str, Path]:
        """The file of each tensor."""
        single = self._directory / "model.safetensors"
        if single.exists():
            return dict.fromkeys(self._names(single), single)
        index = read_object("load_weight", self._directory / "model.safetensors.index.json")
        if index is not None:
            return self._indexed(index.values.get("weight_map"))
        files: dict[str, Path] = {}
        for file in sorted(self._directory.glob("*.safetensors")):
            for name in self._names(file):
                if name in files:
                    got = f"tensor {name!r} in both {files[name].name} and {file.name}"
                    remedy = "leave one checkpoint in the directory, or name its files in an index"
                    refuse("checkpoint_dir", got, "each tensor once", remedy)
                files[name] = file
        if not files:
            got = f"no tensors in {self._directory}"
            remedy = "convert other kinds of files to safetensors first"
            refuse("checkpoint_dir", got, "model.safetensors or other *.safetensors", remedy)
        return files

    def _indexed(self, weight_map: Any) -> dict[str, Path]:
        source = "'weight_map' in model.safetensors.index.json"
        if not isinstance(weight_map, dict) or not weight_map:
            refuse(source, repr(weight_map), "an object: tensor -> file")
        for file in weight_map.values():
            # A plain name, so that an index cannot lead out of the directory. Symbolic links may:
            # the caches of model hubs consist of them.
            if not isinstance(file, str) or not re.fullmatch(r"[^/\\\0]+\.safetensors", file):
                refuse(source, repr(file), "names of safetensors files in the same directory")
        return {name: self._directory / file for name, file in weight_map.items()}

    def _names(self, file: Path) -> list[str]:
        with _damage_refused(file):
            return list(self._reader(file).keys())

    def _reader(self, file: Path) -> Any:
        if file not in self._readers:
            check_regular_file("load_weight", file.name, file)
            self._readers[file] = self._open_files.enter_context(safe_open(file, framework="pt"))
        return self._readers[file]


@contextmanager
def _damage_refused(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, MemoryError, UnicodeError, SafetensorError) as error:
        remedy = "download the file again: it is missing, truncated or damaged"
        refuse(file.name, error, "a readable safetensors file that holds what was asked", remedy)
