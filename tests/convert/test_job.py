# SPDX-License-Identifier: Apache-2.0
"""Conversions are killed and taken up again, refuse what they must, and leave nothing behind that
looks complete.

Seeds: `write`'s, 1 to 9; the moments of the kills, 0 to 4.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from padmarlin.convert import fold_checkpoint, pad_checkpoint, unpad_checkpoint
from padmarlin.convert import job as job_module
from padmarlin.convert.job import JOURNAL
from tests.convert import made
from tests.convert.test_pad import assert_same_folders

# Kills itself at a given call of the system that writes, flushes or renames.
KILLED = """
import os, signal, sys
from pathlib import Path
from padmarlin.convert import pad_checkpoint
left = int(sys.argv[3])
def counted(function):
    def call(*arguments, **named):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return call
os.fsync = counted(os.fsync)
Path.replace = counted(Path.replace)
Path.unlink = counted(Path.unlink)
pad_checkpoint(sys.argv[1], sys.argv[2], tp=2, checksum=True)
print(left)
"""


def run_killed(source: Path, out: Path, calls: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", KILLED, str(source), str(out), str(calls)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return made.write(tmp_path / "in", made.qwen2(352), made.gptq(), seed=1, files=3)


def test_killed_at_random_moments_it_ends_in_the_same_bytes(source: Path, tmp_path: Path) -> None:
    many = 10**6
    whole = run_killed(source, tmp_path / "whole", many)
    assert whole.returncode == 0, whole.stderr
    calls = many - int(whole.stdout)
    assert calls > 20
    for seed in range(5):
        out = tmp_path / f"out{seed}"
        moment = random.Random(seed).randrange(calls)
        assert run_killed(source, out, moment).returncode == -signal.SIGKILL
        if (out / "config.json").exists():
            # It comes last: all that could be missing is the checksums.
            assert len(list(out.glob("*.safetensors"))) == 3
        pad_checkpoint(source, out, tp=2, checksum=True)
        assert_same_folders(out, tmp_path / "whole")


def test_killed_twice_and_by_the_clock(source: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "padmarlin", "pad", str(source), str(tmp_path / "out")]
    for seed in range(2):
        with subprocess.Popen([*command, "--tp", "2"], stdout=subprocess.DEVNULL) as process:
            try:
                process.wait(random.Random(seed).uniform(0.3, 1.5))
            except subprocess.TimeoutExpired:
                process.kill()
    pad_checkpoint(source, tmp_path / "out", tp=2)
    pad_checkpoint(source, tmp_path / "whole", tp=2)
    assert_same_folders(tmp_path / "out", tmp_path / "whole")


def stopped(source: Path, out: Path) -> None:
    """A padding that was killed somewhere in the middle."""
    assert run_killed(source, out, 6).returncode == -signal.SIGKILL
    assert (out / JOURNAL).exists() and not (out / "config.json").exists()


@pytest.mark.parametrize("checksum", [False, True])
def test_a_finished_job_is_recognised_by_its_bytes(
    source: Path, tmp_path: Path, checksum: bool
) -> None:
    out = tmp_path / "out"
    pad_checkpoint(source, out, tp=2, checksum=checksum)
    before = {path: path.stat().st_ino for path in out.rglob("*")}
    pad_checkpoint(source, out, tp=2, checksum=checksum)
    assert {path: path.stat().st_ino for path in out.rglob("*")} == before
    shard = next(out.glob("*.safetensors"))
    damaged = bytearray(shard.read_bytes())
    damaged[-1] ^= 1
    shard.write_bytes(damaged)
    with pytest.raises(ValueError, match="padmarlin overwrites nothing"):
        pad_checkpoint(source, out, tp=2, checksum=checksum)


def test_finished_files_are_not_written_again(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stopped(source, out)
    before = {path: path.stat().st_ino for path in out.glob("*.safetensors")}
    assert before
    pad_checkpoint(source, out, tp=2, checksum=True)
    assert all(path.stat().st_ino == inode for path, inode in before.items())


def test_other_work_is_not_taken_up(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stopped(source, out)
    for convert in (
        lambda: pad_checkpoint(source, out, tp=4, checksum=True),
        lambda: pad_checkpoint(source, out, tp=2),
    ):
        with pytest.raises(ValueError, match="pad: OUT: .*where other work was begun"):
            convert()
    os.utime(source / "config.json")
    with pytest.raises(ValueError, match="pad: OUT: .*where other work was begun"):
        pad_checkpoint(source, out, tp=2, checksum=True)


def test_two_at_once_are_one_too_many(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    class Second:
        def start(self, total_bytes: int) -> None:
            with pytest.raises(ValueError, match="pad: OUT: .*in use"):
                pad_checkpoint(source, out, tp=2)

        def advance(self, file: str, done_bytes: int) -> None:
            pass

    pad_checkpoint(source, out, tp=2, progress=Second())
    unpad_checkpoint(out, tmp_path / "back")
    assert_same_folders(tmp_path / "back", source)


def test_progress_adds_up(source: Path, tmp_path: Path) -> None:
    class Counted:
        total = done = 0

        def start(self, total_bytes: int) -> None:
            self.total = total_bytes

        def advance(self, file: str, done_bytes: int) -> None:
            self.done += done_bytes

    counted = Counted()
    pad_checkpoint(source, tmp_path / "out", tp=2, progress=counted)
    assert counted.done == counted.total > 0


def test_nothing_is_overwritten(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pad_checkpoint(source, out, tp=2)
    (out / "notes.txt").write_text("somebody's")
    kept = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
    with pytest.raises(ValueError, match="pad: OUT: .*which holds .*overwrites nothing"):
        pad_checkpoint(source, out, tp=2)
    assert {path: path.read_bytes() for path in out.iterdir() if path.is_file()} == kept
    with pytest.raises(ValueError, match="unpad: OUT: "):
        unpad_checkpoint(out, source)
    for place in (source, source / "inside", tmp_path):
        with pytest.raises(ValueError, match="pad: OUT: .*a folder outside"):
            pad_checkpoint(source, place, tp=2)
    with pytest.raises(ValueError, match="pad: OUT: .*a file"):
        pad_checkpoint(source, out / "config.json", tp=2)
    (tmp_path / "empty").mkdir()
    pad_checkpoint(source, tmp_path / "empty", tp=2)


def test_room_is_checked_first(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(job_module.shutil, "disk_usage", lambda path: usage(0, 0, 10_000))
    with pytest.raises(ValueError, match="pad: OUT: got 0.00 GB free"):
        pad_checkpoint(source, tmp_path / "out", tp=2)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_work_to_go_on_with(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(100))

    def full(descriptor: int) -> None:
        if next(calls) == 5:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(job_module.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            pad_checkpoint(source, tmp_path / "out", tp=2)
    assert not (tmp_path / "out" / "config.json").exists()
    pad_checkpoint(source, tmp_path / "out", tp=2)
    pad_checkpoint(source, tmp_path / "whole", tp=2)
    assert_same_folders(tmp_path / "out", tmp_path / "whole")


def test_checksums(source: Path, tmp_path: Path) -> None:
    pad_checkpoint(source, tmp_path / "out", tp=2, checksum=True)
    sums = (tmp_path / "out" / "SHA256SUMS").read_text().splitlines()
    listed = dict(reversed(line.split("  ")) for line in sums)  # type: ignore[var-annotated]
    files = [p for p in (tmp_path / "out").rglob("*") if p.is_file() and p.name != "SHA256SUMS"]
    assert listed == {
        str(p.relative_to(tmp_path / "out")): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in files
    }
    # Those of the padded files are none of the restored ones'.
    unpad_checkpoint(tmp_path / "out", tmp_path / "back", checksum=True)
    (tmp_path / "back" / "SHA256SUMS").unlink()
    assert_same_folders(tmp_path / "back", source)
    shard = next((tmp_path / "out").glob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ValueError, match=f"unpad: {shard.name}: got SHA-256 .* as SHA256SUMS says"):
        unpad_checkpoint(tmp_path / "out", tmp_path / "again", checksum=True)
    assert not (tmp_path / "again").exists()


def truncate(source: Path) -> None:
    file = sorted(source.glob("*.safetensors"))[1]
    file.write_bytes(file.read_bytes()[:-10])


def break_header(source: Path) -> None:
    file = sorted(source.glob("*.safetensors"))[1]
    data = bytearray(file.read_bytes())
    data[8] = ord("x")
    file.write_bytes(data)


def drop_file(source: Path) -> None:
    sorted(source.glob("*.safetensors"))[1].unlink()


def change(source: Path, name: str, edit: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
    for file in source.glob("*.safetensors"):
        tensors = made.load_file(file)
        if name in tensors:
            edited = edit(tensors.pop(name))
            if edited is not None:
                tensors[name] = edited
            save_file(tensors, file)


def set_nan(tensor: torch.Tensor) -> torch.Tensor:
    tensor[1, 2] = torch.nan
    return tensor


def set_far(tensor: torch.Tensor) -> torch.Tensor:
    tensor[7] = 10**6
    return tensor


DOWN = "model.layers.1.mlp.down_proj"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (truncate, "tensor .* in model-00002.*bytes"),
    "header": (break_header, "model-00002-of-00003.safetensors: .*a safetensors file"),
    "no file": (drop_file, "index.json: .*model-00002-of-00003.safetensors, which is not there"),
    "cut scales": (
        lambda s: change(s, f"{DOWN}.scales", lambda t: t[:-1].contiguous()),
        f"tensor '{DOWN}.scales' in model-0000",
    ),
    "no tensor": (
        lambda s: change(s, f"{DOWN}.qzeros", lambda t: None),
        f"index.json: got '{DOWN}.qzeros'",
    ),
    "NaN": (
        lambda s: change(s, f"{DOWN}.scales", set_nan),
        f"tensor '{DOWN}.scales' in model-0000.*infinity or NaN at \\[1, 2\\]",
    ),
    "g_idx": (
        lambda s: change(s, f"{DOWN}.g_idx", set_far),
        f"tensor '{DOWN}.g_idx' in model-0000.*1000000 at row 7",
    ),
    "other dtype": (
        lambda s: change(s, f"{DOWN}.qweight", lambda t: t.float()),
        f"tensor '{DOWN}.qweight' in model-0000.*F32",
    ),
    "other config": (
        lambda s: (s / "config.json").write_text(
            (s / "config.json").read_text().replace("352", "384")
        ),
        "384|config.json",
    ),
    "config": (lambda s: (s / "config.json").write_text("{"), "config.json: .*JSON"),
    "layer": (
        lambda s: [change(s, f"{DOWN}.{x}", lambda t: None) for x in ["qweight", "qzeros"]],
        "index.json",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_nothing_is_left(damage: str, source: Path, tmp_path: Path) -> None:
    inflict, message = DAMAGES[damage]
    inflict(source)
    with pytest.raises(ValueError, match=f"^pad: .*{message}"):
        pad_checkpoint(source, tmp_path / "out", tp=2)
    assert not (tmp_path / "out").exists()


def test_other_formats_are_refused(source: Path, tmp_path: Path) -> None:
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"]["checkpoint_format"] = "marlin"
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="^pad: 'checkpoint_format' in config.json"):
        pad_checkpoint(source, tmp_path / "out", tp=2)
    eight = made.write(tmp_path / "fp8", made.qwen2(352), made.plain(), seed=2)
    tensors = {
        name: t.to(torch.float8_e4m3fn) if "mlp" in name else t
        for name, t in made.tensors_of(eight).items()
    }
    save_file(tensors, eight / "model.safetensors")
    with pytest.raises(ValueError, match="^pad: IN: .*F8_E4M3"):
        pad_checkpoint(eight, tmp_path / "out", tp=2)
    with pytest.raises(ValueError, match="^unpad: IN: .*the record of a padding"):
        unpad_checkpoint(source, tmp_path / "out")
    with pytest.raises(ValueError, match="^fold: "):
        fold_checkpoint(eight, tmp_path / "out")
    pad_checkpoint(
        made.write(tmp_path / "ok", made.qwen2(352), made.awq(), seed=3), tmp_path / "padded", tp=2
    )
    with pytest.raises(ValueError, match="^pad: IN: .*padded already"):
        pad_checkpoint(tmp_path / "padded", tmp_path / "out", tp=2)
    with pytest.raises(ValueError, match="^pad: group_size: got 64"):
        pad_checkpoint(tmp_path / "ok", tmp_path / "out", tp=2, group_size=64)
    for tp in (0, -1):
        with pytest.raises(ValueError, match="^pad: tp"):
            pad_checkpoint(tmp_path / "ok", tmp_path / "out", tp=tp)
    shutil.rmtree(tmp_path / "ok")
    with pytest.raises(ValueError, match="^pad: IN: .*an existing folder"):
        pad_checkpoint(tmp_path / "ok", tmp_path / "out", tp=2)
