# SPDX-License-Identifier: Apache-2.0
"""``repack_checkpoint``: what it writes loads as the original does, killed at any moment it goes on
to the same bytes, and it refuses what it must. Seeds of the kills: 0 to 9."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import padmarlin
from padmarlin import Shard
from padmarlin.checkpoint.repacked import INDEX, JOURNAL
from padmarlin.shards import repack_checkpoint
from tests.checkpoint_files import AWQ, GPTQ, QUANTIZED_LAYERS, REAL

DOWN = "model.layers.0.mlp.down_proj"
GATE = "model.layers.0.mlp.gate_proj"
SOURCE = next(path for path in GPTQ if path.name == "gptq4_g128_sym_i384")
SMALL = 40_000
"""Bytes of a file, so that the smallest checkpoints take several."""


def contents(directory: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()
    }


def assert_same_weight(got: padmarlin.PaddedWeight, expected: padmarlin.PaddedWeight) -> None:
    left, right = got.state_dict(), expected.state_dict()
    assert left.keys() == right.keys()
    for name, tensor in right.items():
        assert torch.equal(left[name], tensor), name


@pytest.mark.parametrize("tp", [1, 2])
@pytest.mark.parametrize("directory", REAL, ids=lambda path: path.name)
def test_it_loads_as_the_original(tmp_path: Path, directory: Path, tp: int) -> None:
    done = repack_checkpoint(directory, tmp_path / "out", tp=tp, file_bytes=SMALL)
    assert sorted(done.layers) == sorted(QUANTIZED_LAYERS)
    for name, layer in done.layers.items():
        assert layer.axis == ("k" if name.endswith(("o_proj", "down_proj")) else "n")
        for rank in range(tp):
            shard = Shard(layer.axis, rank, tp)
            got = padmarlin.load_weight(tmp_path / "out", name, shard=shard)
            assert_same_weight(got, padmarlin.load_weight(directory, name, shard=shard))
    original = load_file(directory / "model.safetensors")
    for name, file in done.others.items():
        assert torch.equal(load_file(tmp_path / "out" / file)[name], original[name])
    left = {name for name in original if name.rpartition(".")[0] not in QUANTIZED_LAYERS}
    biases = {f"{name}.bias" for name in QUANTIZED_LAYERS} & original.keys()
    assert done.others.keys() == left | biases


def test_other_tensors_of_every_shape(tmp_path: Path) -> None:
    source = tmp_path / "in"
    shutil.copytree(SOURCE, source)
    tensors = load_file(source / "model.safetensors")
    others = {
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 4),
        "bytes": torch.arange(7, dtype=torch.uint8),
        "flags": torch.tensor([True, False]),
        "cube": torch.randn(3, 4, 5, dtype=torch.float64),
    }
    save_file(tensors | others, source / "model.safetensors")
    done = repack_checkpoint(source, tmp_path / "out", tp=2)
    for name, tensor in others.items():
        got = load_file(tmp_path / "out" / done.others[name])[name]
        assert got.dtype == tensor.dtype and torch.equal(got, tensor), name


def test_options(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = repack_checkpoint(
        SOURCE, out, tp=2, dtype=torch.bfloat16, others=False, checksum=True, file_bytes=SMALL
    )
    assert done.others == {}
    shard = Shard("k", 1, 2)
    got = padmarlin.load_weight(out, DOWN, shard=shard, dtype=torch.bfloat16)
    expected = padmarlin.load_weight(SOURCE, DOWN, shard=shard, dtype=torch.bfloat16)
    assert_same_weight(got, expected)
    lines = (out / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    found = contents(out)
    assert sums.items() <= found.items()
    assert found.keys() - sums.keys() == {"SHA256SUMS", INDEX}
    with pytest.raises(ValueError, match=r"dtype: got torch\.float16.*bfloat16"):
        padmarlin.load_weight(out, DOWN, shard=shard, dtype=torch.float16)


def test_what_does_not_divide_is_stored_whole(tmp_path: Path) -> None:
    done = repack_checkpoint(SOURCE, tmp_path / "out", tp=3)
    o_proj = "model.layers.0.self_attn.o_proj"
    assert done.layers[o_proj].axis is None
    assert_same_weight(
        padmarlin.load_weight(tmp_path / "out", o_proj), padmarlin.load_weight(SOURCE, o_proj)
    )
    with pytest.raises(ValueError, match="stored whole for every rank"):
        padmarlin.load_weight(tmp_path / "out", o_proj, shard=Shard("k", 0, 3))


@pytest.fixture(scope="module")
def repacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("repacked") / "out"
    repack_checkpoint(SOURCE, out, tp=2, file_bytes=SMALL)
    return out


WRONG_SHARDS = [
    (DOWN, None, r"shard: got None, expected Shard\('k', rank, 2\)"),
    (DOWN, Shard("n", 0, 2), "axis 'k' and world_size 2"),
    (DOWN, Shard("k", 0, 4), "axis 'k' and world_size 2.*tp=4"),
    (DOWN, Shard("k", 0, 1), "expected Shard"),
    (GATE, Shard("k", 1, 2), "axis 'n'"),
    ("model.layers.0.mlp.down", None, "close matches: model.layers.0.mlp.down_proj"),
]


@pytest.mark.parametrize("name, shard, message", WRONG_SHARDS)
def test_other_cuts_are_refused(
    repacked: Path, name: str, shard: Shard | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        padmarlin.load_weight(repacked, name, shard=shard)


def edited(repacked: Path, target: Path, **changes: object) -> Path:
    shutil.copytree(repacked, target)
    index = json.loads((target / INDEX).read_text())
    (target / INDEX).write_text(json.dumps({**index, **changes}))
    return target


@pytest.mark.parametrize("key", ["repack_version", "format_version"])
def test_unknown_versions_are_refused(repacked: Path, tmp_path: Path, key: str) -> None:
    out = edited(repacked, tmp_path / "out", **{key: 99})
    with pytest.raises(ValueError, match=f"{key}.*got 99, expected 1"):
        padmarlin.load_weight(out, DOWN, shard=Shard("k", 0, 2))


@pytest.mark.parametrize("changes", [{"tp": "2"}, {"tp": 3}, {"dtype": 4}, {"others": {"x": 1}}])
def test_values_that_cannot_be_are_refused(
    repacked: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    out = edited(repacked, tmp_path / "out", **changes)
    with pytest.raises(ValueError, match=INDEX):
        padmarlin.load_weight(out, DOWN, shard=Shard("k", 0, 2))


@pytest.mark.parametrize(
    "layers",
    [None, [], {DOWN: None}, {DOWN: {"axis": "k", "k": 1, "n": 1, "files": ["../x.safetensors"]}}],
)
def test_a_damaged_index_is_refused(repacked: Path, tmp_path: Path, layers: object) -> None:
    out = edited(repacked, tmp_path / "out", layers=layers)
    with pytest.raises(ValueError, match=INDEX):
        padmarlin.load_weight(out, DOWN, shard=Shard("k", 0, 2))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": lambda file: file.unlink(),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-1000]),
    "empty": lambda file: file.write_bytes(b""),
    "another rank's sizes": lambda file: save_file(
        padmarlin.load_weight(SOURCE, DOWN).state_dict(f"{DOWN}."), file
    ),
    "lacks the layer": lambda file: save_file({"x": torch.zeros(1)}, file),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named(repacked: Path, tmp_path: Path, damage: str) -> None:
    out = tmp_path / "out"
    shutil.copytree(repacked, out)
    index = json.loads((out / INDEX).read_text())
    name = index["layers"][DOWN]["files"][1]
    DAMAGE[damage](out / name)
    with pytest.raises(ValueError, match=f"{name}|{DOWN}"):
        padmarlin.load_weight(out, DOWN, shard=Shard("k", 1, 2))
    # Every machine needs its own ranks' files only.
    padmarlin.load_weight(out, DOWN, shard=Shard("k", 0, 2))


def test_tensors_that_cannot_be_a_weight_are_named(repacked: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(repacked, out)
    file = json.loads((out / INDEX).read_text())["layers"][DOWN]["files"][1]
    tensors = load_file(out / file)
    tensors[f"{DOWN}.slice_rows"] += 1000
    save_file(tensors, out / file)
    with pytest.raises(ValueError, match=f"^load_weight: {file}: {DOWN}: slice_rows: got "):
        padmarlin.load_weight(out, DOWN, shard=Shard("k", 1, 2))


def killed(source: Path, out: Path, steps: int) -> int:
    """Repacks in a fork that kills itself at a call of any function; how it ended."""
    child = os.fork()
    if child == 0:
        left = steps

        def count(*_: object) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        torch.set_num_threads(1)
        sys.setprofile(count)
        repack_checkpoint(source, out, tp=2, file_bytes=SMALL, checksum=True)
        sys.setprofile(None)
        (out.parent / "steps").write_text(str(steps - left))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_moment_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = tmp_path / "whole" / "out"
    assert killed(SOURCE, whole, 1 << 60) == 0
    steps = int((whole.parent / "steps").read_text())
    for seed in range(10):
        out = tmp_path / f"out{seed}"
        moments = random.Random(seed)
        assert killed(SOURCE, out, moments.randrange(1, steps)) == -signal.SIGKILL
        if not out.exists() or not (out / INDEX).exists():
            with pytest.raises(ValueError, match="load_weight"):
                padmarlin.load_weight(out, DOWN, shard=Shard("k", 0, 2))
        if seed % 2 and (out / JOURNAL).exists():  # killed a second time, on the way
            killed(SOURCE, out, moments.randrange(1, steps // 2))
        repack_checkpoint(SOURCE, out, tp=2, file_bytes=SMALL, checksum=True)
        assert contents(out) == contents(whole), seed


def interrupted(out: Path) -> Path:
    """A repack that stopped after its first files."""

    class Stop(Exception):
        pass

    class Stopping:
        def __init__(self) -> None:
            self.layers = 0

        def start(self, total_bytes: int) -> None:
            pass

        def advance(self, file: str, done_bytes: int) -> None:
            self.layers += 1
            if self.layers == 5:
                raise Stop

    with pytest.raises(Stop):
        repack_checkpoint(SOURCE, out, tp=2, file_bytes=SMALL, progress=Stopping())
    assert (out / JOURNAL).exists() and not (out / INDEX).exists()
    return out


def test_an_unfinished_one_is_not_loaded(tmp_path: Path) -> None:
    out = interrupted(tmp_path / "out")
    with pytest.raises(ValueError, match="interrupted.*run the same repack again"):
        padmarlin.load_weight(out, DOWN, shard=Shard("k", 0, 2))


def test_going_on_makes_no_finished_file_again(tmp_path: Path) -> None:
    out = interrupted(tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in out.glob("rank-*")}
    assert times
    repack_checkpoint(SOURCE, out, tp=2, file_bytes=SMALL)
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_another_repack_does_not_go_on(tmp_path: Path) -> None:
    out = interrupted(tmp_path / "out")
    before = contents(out)
    for source, options in ((SOURCE, {"tp": 1}), (AWQ, {"tp": 2})):
        with pytest.raises(ValueError, match="other files or with other options"):
            repack_checkpoint(source, out, file_bytes=SMALL, **options)  # type: ignore[arg-type]
    assert contents(out) == before


def test_nothing_is_overwritten(repacked: Path, tmp_path: Path) -> None:
    before = contents(repacked)
    with pytest.raises(ValueError, match="OUT: .*a finished repack.*nothing is overwritten"):
        repack_checkpoint(SOURCE, repacked, tp=1, file_bytes=SMALL)
    assert contents(repacked) == before
    (tmp_path / "other.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"other\.txt"):
        repack_checkpoint(SOURCE, tmp_path, tp=2)
    assert contents(tmp_path).keys() == {"other.txt"}


def test_a_finished_one_is_recognised_by_its_bytes(repacked: Path, tmp_path: Path) -> None:
    times = {path: path.stat().st_mtime_ns for path in repacked.iterdir()}
    done = repack_checkpoint(SOURCE, repacked, tp=2, file_bytes=SMALL)
    assert len(done.layers) == 7
    assert {path: path.stat().st_mtime_ns for path in repacked.iterdir()} == times
    for name, edit in (
        ("rank-1-of-2-00001.safetensors", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
        ("config.json", lambda data: data + b" "),
        ("notes.txt", lambda data: b"mine"),
    ):
        out = tmp_path / name
        shutil.copytree(repacked, out)
        changed = out / name
        changed.write_bytes(edit(changed.read_bytes() if changed.exists() else b""))
        before = contents(out)
        with pytest.raises(ValueError, match="nothing is overwritten"):
            repack_checkpoint(SOURCE, out, tp=2, file_bytes=SMALL)
        assert contents(out) == before


def test_places_that_are_refused(repacked: Path, tmp_path: Path) -> None:
    inside = tmp_path / "in"
    shutil.copytree(SOURCE, inside)
    file = tmp_path / "file"
    file.write_text("")
    for source, out, message in (
        (tmp_path / "none", tmp_path / "out", "IN: got"),
        (inside, inside, "OUT: .*outside of IN"),
        (inside, inside / "out", "OUT: .*outside of IN"),
        (inside, file, "OUT: got the file"),
        (repacked, tmp_path / "out", "IN: .*repacked already"),
    ):
        with pytest.raises(ValueError, match=message):
            repack_checkpoint(source, out, tp=2)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_seen_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(ValueError, match=r"OUT: got 0\.00 GB free.*about 0\.00 GB"):
        repack_checkpoint(SOURCE, tmp_path / "out", tp=2)
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_damaged_input_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "in"
    shutil.copytree(SOURCE, source)
    tensors = load_file(source / "model.safetensors")
    tensors[f"{DOWN}.scales"][0, 0] = float("nan")
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(ValueError, match=r"nan at group 0, column 0.*down_proj"):
        repack_checkpoint(source, tmp_path / "out", tp=2, file_bytes=SMALL)
    assert not (tmp_path / "out").exists()


def test_a_changed_input_is_seen_by_its_checksums(tmp_path: Path) -> None:
    source = tmp_path / "in"
    shutil.copytree(SOURCE, source)
    (source / "SHA256SUMS").write_text(f"{'0' * 64}  model.safetensors\n")
    repack_checkpoint(source, tmp_path / "unasked", tp=1)
    assert not (tmp_path / "unasked" / "SHA256SUMS").exists()
    with pytest.raises(ValueError, match=r"model\.safetensors.*SHA-256"):
        repack_checkpoint(source, tmp_path / "out", tp=1, checksum=True)


def test_arguments(tmp_path: Path) -> None:
    calls: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"tp": 0}, ValueError, "tp: got 0"),
        ({"tp": 2, "dtype": torch.float32}, TypeError, "dtype: got torch.float32"),
        ({"tp": 2, "file_bytes": 0}, ValueError, "file_bytes: got 0"),
        ({"tp": np.float64(2)}, TypeError, "tp: got"),
    ]
    for arguments, kind, message in calls:
        with pytest.raises(kind, match=message):
            repack_checkpoint(SOURCE, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()
