# SPDX-License-Identifier: Apache-2.0
"""Damaged files against `load_weight` and `PaddedWeight.load`, in a process with limits.

python -m tests.fuzz.files TARGET FIRST COUNT runs cases FIRST to FIRST + COUNT - 1 of a target.
"""

from __future__ import annotations

import faulthandler
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from padmarlin import PaddedWeight, Shard, dequantize, gemm, load_weight, repack_gptq
from padmarlin.checkpoint import patterns
from tests import checkpoint_files, oracle
from tests.fuzz import damage
from tests.fuzz.verdict import answer_or_refusal, bounded_memory

SECONDS = 30
"""For one case; the slowest takes a second."""

Case = Callable[[Random, Path], None]


@dataclass(frozen=True)
class Damaged:
    """`load_weight` on a real checkpoint after some damage."""

    damage: Callable[[Random, Path], None]

    def __call__(self, random: Random, directory: Path) -> None:
        source = random.choice(checkpoint_files.REAL)
        for name in (damage.CONFIG, damage.TENSORS):
            shutil.copy(source / name, directory)
        self.damage(random, directory)
        layer = random.choice(checkpoint_files.QUANTIZED_LAYERS)
        shard = random.choice([None, Shard("k", 0, 2), Shard("k", 1, 2), Shard("n", 1, 2)])
        weight = answer_or_refusal(lambda: load_weight(directory, layer, shard=shard))
        if weight is not None:
            _check_loaded(directory, layer, shard, dequantize(weight))


def _check_loaded(directory: Path, layer: str, shard: Shard | None, got: Tensor) -> None:
    """What was loaded is what the files say, where they can be read independently."""
    config = json.loads((directory / damage.CONFIG).read_bytes())
    values = config.get("quantization_config")
    if values is None or values.get("dynamic"):
        return
    read = _READERS.get(values.get("quant_method") or values.get("method") or "gptq")
    if read is None:
        return
    stored = {}
    for file in directory.glob("*.safetensors"):
        stored.update(load_file(file))
    named = {name.rpartition(".")[2]: t for name, t in stored.items() if name.startswith(layer)}
    expected = read(named, values)
    if shard is not None:
        axis = "kn".index(shard.axis)
        start, stop = shard.bounds(expected.shape[axis])
        expected = expected.narrow(axis, start, stop - start)
    oracle.assert_same(got, expected)


def _read_gptq(tensors: dict[str, Tensor], settings: dict[str, Any]) -> Tensor:
    scales = tensors["scales"]
    g_idx = tensors.get("g_idx")
    bits = settings["bits"]
    layer = oracle.Gptq(
        qweight=tensors["qweight"].numpy(),
        scales=scales.float().numpy(),
        qzeros=tensors["qzeros"].numpy(),
        g_idx=None if g_idx is None else g_idx.numpy(),
        k=len(tensors["qweight"]) * 32 // bits if g_idx is None else len(g_idx),
        bits=bits,
        group_size=settings["group_size"],
        checkpoint_format=settings.get("checkpoint_format") or settings.get("format") or "gptq",
    )
    return layer.dequantized(torch.float16 if scales.dtype == torch.float32 else scales.dtype)


_READERS = {"gptq": _read_gptq}
"""Per method, an independent reading: tensors by the last part of their names, and the settings.
A method without one is only held to load or to refuse."""


@dataclass(frozen=True)
class DamagedPacked:
    """`PaddedWeight.load` of a file that was damaged."""

    damage: Callable[[Random, Path], None]

    def __call__(self, random: Random, directory: Path) -> None:
        layer = oracle.random_gptq(
            np.random.default_rng(random.randrange(100)),
            random.choice([1, 100, 130]),
            random.choice([1, 70]),
            bits=random.choice([4, 8]),
            group_size=32,
            symmetric=random.random() < 0.5,
            act_order=random.random() < 0.5,
        )
        repack_gptq(**layer.arguments()).save(directory / damage.TENSORS)
        self.damage(random, directory)
        weight = answer_or_refusal(lambda: PaddedWeight.load(directory / damage.TENSORS))
        if weight is not None:
            dense = dequantize(weight)
            product = gemm(torch.eye(weight.k, dtype=weight.dtype), weight)
            if dense.isfinite().all():
                oracle.assert_same(product, dense)


TARGETS: dict[str, Case] = {
    "bytes_of_tensors": Damaged(damage.bytes_of_tensors),
    "header_size": Damaged(damage.header_size),
    "header_entries": Damaged(damage.header_entries),
    "tensors": Damaged(damage.tensors),
    "settings": Damaged(damage.settings),
    "bytes_of_config": Damaged(damage.bytes_of_config),
    "index": Damaged(damage.index),
    "packed_bytes": DamagedPacked(damage.bytes_of_tensors),
    "packed_header": DamagedPacked(damage.header_entries),
}


def main(target: str, first: int, count: int) -> None:
    torch.set_num_threads(1)
    patterns.TIMEOUT_S = 0.3  # of the patterns that never end, enough for the others
    for number in range(first, first + count):
        # On disk at once: it says which case it was that ended the process.
        print(f"python -m tests.fuzz.files {target} {number} 1", flush=True)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        with tempfile.TemporaryDirectory() as directory, bounded_memory():
            TARGETS[target](Random(f"{target} {number}"), Path(directory))
        faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    for name in TARGETS if sys.argv[1] == "all" else [sys.argv[1]]:
        main(name, int(sys.argv[2]), int(sys.argv[3]))
