# SPDX-License-Identifier: Apache-2.0
"""``padmarlin pad``, ``unpad`` and ``fold`` as commands: exit codes and what they print."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from padmarlin.cli import app
from padmarlin.convert import job
from tests import checkpoint_files

SOURCE = checkpoint_files.GPTQ[0]
runner = CliRunner()


def test_pad_and_unpad(tmp_path: Path) -> None:
    padded, back = str(tmp_path / "padded"), str(tmp_path / "back")
    result = runner.invoke(app, ["pad", str(SOURCE), padded, "--tp", "2"])
    assert result.exit_code == 0 and result.stderr == ""
    assert result.stdout.splitlines() == [
        "intermediate_size: 384 -> 512 (256 per rank at TP=2)",
        f"3 layers padded, 0.53 MB -> 0.58 MB (+9.8%): {padded}",
    ]
    result = runner.invoke(app, ["unpad", padded, back])
    assert result.exit_code == 0 and result.stderr == ""
    assert result.stdout.splitlines()[0] == "intermediate_size: 512 -> 384"
    for path in SOURCE.iterdir():
        assert (Path(back) / path.name).read_bytes() == path.read_bytes(), path.name


def test_piped_output_is_plain(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "padmarlin", "pad", str(SOURCE), str(tmp_path / "o"), "--tp=4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.isascii() and "\x1b" not in done.stdout and "\r" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith("note: model.layers.0.self_attn.o_proj stays")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pad", "nowhere", "out", "--tp", "2"], "padmarlin pad: IN: got 'nowhere'"),
        (["pad", str(SOURCE), "out"], "padmarlin pad: Missing option '--tp'"),
        (["pad", str(SOURCE), "out", "--tp", "0"], "padmarlin pad: tp: got 0"),
        (["unpad", str(SOURCE), "out"], "padmarlin unpad: IN: got neither"),
        (["fold", str(SOURCE), "out"], "padmarlin fold: IN: got no output layer"),
    ],
)
def test_bad_input_takes_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith(message) and len(result.stderr.splitlines()) == 1
    assert not Path("out").exists()


def test_a_failing_disk_takes_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(job.os, "fsync", fail)
    result = runner.invoke(app, ["pad", str(SOURCE), str(tmp_path / "out"), "--tp", "2"])
    assert result.exit_code == 2
    assert "No space left on device; the same command goes on from here" in result.stderr
    assert len(result.stderr.splitlines()) == 1
