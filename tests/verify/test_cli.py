# SPDX-License-Identifier: Apache-2.0
"""``padmarlin verify`` and ``padmarlin repack``: exit codes, one line for what is bad, plain output
when piped."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from padmarlin.cli import app
from padmarlin.verify import RanksFailed
from tests.verify.test_verify import DOWN, STRADDLING, changed


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_table_that_passes() -> None:
    """In a process of its own: what is piped, to the byte."""
    command = [sys.executable, "-m", "padmarlin", "verify", str(STRADDLING), "--tp", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].endswith("over 2 ranks (gloo)")
    assert " ".join(lines[1].split()) == "layer K x N cut wrong weights error of bound"
    assert lines[-1] == "PASS 7 layers"
    assert len(lines) == 10
    assert "\x1b" not in done.stdout
    assert all(line == line.rstrip() and len(line) <= 100 for line in lines[1:])


def test_json_and_a_failure(tmp_path: Path) -> None:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{DOWN}.scales"][0, 0] *= 1.01

    other = changed(STRADDLING, tmp_path / "b", edit)
    result = run("verify", STRADDLING, other, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert (found["schema"], found["passed"]) == ("padmarlin.verify/1", False)
    assert [one["name"] for one in found["layers"] if not one["passed"]] == [DOWN]
    result = run("verify", STRADDLING, other, "--layers", "*down_proj")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "FAIL 1 of 1 layer"
    assert "stored weight at row 0, column 0" in result.stdout


def test_what_cannot_be_cut_is_said_once() -> None:
    result = run("verify", STRADDLING, "--tp", 3)
    assert result.exit_code == 0
    said = [line for line in result.stdout.splitlines() if line.startswith("not cut")]
    assert said == [
        "not cut: model.layers.0.self_attn.k_proj and 1 more: n = 128 is no multiple of 3",
        "not cut: model.layers.0.self_attn.o_proj: k = 256 is no multiple of 3",
        "not cut: model.layers.0.self_attn.q_proj: n = 256 is no multiple of 3",
    ]


def test_bad_input_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(STRADDLING, tmp_path / "a")
    file = tmp_path / "a" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    for arguments, said in (
        (("verify", tmp_path / "a"), "model.safetensors"),
        (("verify", tmp_path / "none"), "expected an existing directory"),
        (("verify", STRADDLING, "--layers", "none"), "layers"),
        (("repack", tmp_path / "a", tmp_path / "out", "--tp", 2), "model.safetensors"),
        (("repack", STRADDLING, tmp_path / "out", "--tp", 0), "tp: got 0"),
        (("repack", STRADDLING, tmp_path / "out", "--tp", 2, "--dtype", "int4"), "--dtype"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1 and said in result.stderr
    assert not (tmp_path / "out").exists()

    def crashed(*_: object, **__: object) -> None:
        raise RanksFailed("verify: ranks: got rank 1 was ended by SIGKILL, expected a result")

    monkeypatch.setattr("padmarlin.cli.verify.verify_checkpoint", crashed)
    result = run("verify", STRADDLING)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("padmarlin verify: ranks: got rank 1 was ended")


def test_repack_then_verify(tmp_path: Path) -> None:
    result = run("repack", STRADDLING, tmp_path / "out", "--tp", 3, "--checksum")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "7 layers for 3 ranks" in lines[0]
    assert lines[1] == "7 other tensors copied as they are"
    assert lines[2].startswith("stored whole: model.layers.0.self_attn.k_proj and 1 more")
    assert (tmp_path / "out" / "SHA256SUMS").exists()
    result = run("verify", STRADDLING, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "over 3 ranks" in result.stdout.replace("\n", " ")
    result = run("repack", STRADDLING, tmp_path / "out", "--tp", 3, "--checksum")
    assert result.exit_code == 0  # the same again: it is there
    result = run("repack", STRADDLING, tmp_path / "out", "--tp", 2)
    assert result.exit_code == 2
    assert "nothing is overwritten" in result.stderr
