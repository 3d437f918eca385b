# SPDX-License-Identifier: Apache-2.0
"""``verify_checkpoint`` passes on real checkpoints, and fails on everything that is wrong: in the
files, in what is loaded, in what is computed. Crashes and hangs are reported, and leave nothing.

Every call starts processes, so there are few, with small checkpoints.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import padmarlin
from padmarlin.verify import RanksFailed, Report, verify_checkpoint
from tests.checkpoint_files import AWQ, COMPRESSED_TENSORS, GPTQ, REAL

DOWN = "model.layers.0.mlp.down_proj"
STRADDLING = next(path for path in GPTQ if path.name == "gptq4_g128_sym_i384")


@pytest.fixture(autouse=True)
def nothing_left_behind():
    yield
    assert not multiprocessing.active_children()


def changed(source: Path, target: Path, *edits: Any) -> Path:
    """A copy of a checkpoint whose tensors each edit has changed in place."""
    shutil.copytree(source, target)
    file = target / "model.safetensors"
    tensors = load_file(file)
    for edit in edits:
        edit(tensors)
    save_file({name: t.contiguous() for name, t in tensors.items()}, file, {"format": "pt"})
    return target


def faults(report: Report) -> str:
    layers = [f"{layer.name}: {fault}" for layer in report.layers for fault in layer.faults]
    return "\n".join([*report.faults, *layers])


@pytest.mark.parametrize("tp", [1, 2])
@pytest.mark.parametrize("directory", REAL, ids=lambda path: path.name)
def test_real_checkpoints_pass(directory: Path, tp: int) -> None:
    report = verify_checkpoint(directory, tp=tp)
    assert report.passed, faults(report)
    assert len(report.layers) == 7
    assert all(layer.weights_wrong == 0 for layer in report.layers)
    # Rounding to 11 bits, or to 8 bits, errs by about a third of its bound.
    assert all(0 < layer.error < 2**-8 for layer in report.layers)
    assert {layer.name.rpartition(".")[2]: layer.axis for layer in report.layers} == {
        **dict.fromkeys(["down_proj", "o_proj"], "k"),
        **dict.fromkeys(["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"], "n"),
    }


def test_what_cannot_be_cut_is_checked_whole() -> None:
    report = verify_checkpoint(STRADDLING, tp=3)
    assert report.passed, faults(report)
    by_name = {layer.name: layer for layer in report.layers}
    assert by_name[DOWN].axis == "k"
    whole = by_name["model.layers.0.self_attn.o_proj"]
    assert whole.axis is None
    assert whole.not_cut == "k = 256 is no multiple of 3"


SCALES = {STRADDLING: "scales", AWQ: "scales", COMPRESSED_TENSORS: "weight_scale"}


@pytest.mark.parametrize("directory", SCALES, ids=lambda path: path.name)
def test_a_scale_off_by_one_percent_fails(tmp_path: Path, directory: Path) -> None:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{DOWN}.{SCALES[directory]}"][1, 2] *= 1.01

    report = verify_checkpoint(directory, changed(directory, tmp_path / "b", edit), tp=2)
    assert not report.passed
    assert {layer.name for layer in report.layers if not layer.passed} == {DOWN}


@pytest.mark.parametrize("directory", SCALES, ids=lambda path: path.name)
def test_swapped_scale_rows_fail(tmp_path: Path, directory: Path) -> None:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        scales = tensors[f"{DOWN}.{SCALES[directory]}"]
        groups = scales.T if directory == COMPRESSED_TENSORS else scales
        groups[:2] = groups[[1, 0]]

    report = verify_checkpoint(directory, changed(directory, tmp_path / "b", edit), tp=2)
    assert not report.passed
    assert {layer.name for layer in report.layers if not layer.passed} == {DOWN}


def one_scale_off(directory: Path, name: str, **more: Any) -> padmarlin.PaddedWeight:
    weight = padmarlin.load_weight(directory, name, **more)
    scales = weight.scales.clone()
    scales[-1, 5] *= 1.01
    return replace(weight, scales=scales)


def neighbouring_rows_swapped(directory: Path, name: str, **more: Any) -> padmarlin.PaddedWeight:
    weight = padmarlin.load_weight(directory, name, **more)
    if weight.scales.shape[0] < 2:
        return weight
    order = [1, 0, *range(2, weight.scales.shape[0])]
    return replace(weight, scales=weight.scales[order].contiguous())


@pytest.mark.parametrize("load", [one_scale_off, neighbouring_rows_swapped])
def test_wrong_loading_fails(load: Any) -> None:
    report = verify_checkpoint(STRADDLING, tp=2, layers="*down_proj", load_weight=load)
    (layer,) = report.layers
    assert not layer.passed
    assert layer.weights_wrong > 0
    assert "padmarlin's weight at row" in faults(report)


def test_another_ranks_part_fails() -> None:
    def load(directory: Path, name: str, *, shard: Any, **more: Any) -> padmarlin.PaddedWeight:
        other = padmarlin.Shard(shard.axis, 1 - shard.rank, 2)
        return padmarlin.load_weight(directory, name, shard=other, **more)

    report = verify_checkpoint(STRADDLING, tp=2, load_weight=load)
    assert not any(layer.passed for layer in report.layers)


def test_a_wrong_dequantize_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    right = padmarlin.dequantize
    monkeypatch.setattr(padmarlin, "dequantize", lambda weight: right(weight) * 1.001)
    report = verify_checkpoint(STRADDLING, tp=2, layers="*mlp*")
    assert not any(layer.passed for layer in report.layers)
    assert all(layer.of_bound <= 1 for layer in report.layers)  # gemm is as it was


WRONG_GEMMS = {
    "off by a thousandth": lambda a, w: padmarlin.gemm(a, w) * 1.002,
    "drops a row": lambda a, w: padmarlin.gemm(a.index_fill(1, torch.tensor([3]), 0), w),
    "NaN": lambda a, w: padmarlin.gemm(a, w).index_fill(1, torch.tensor([7]), float("nan")),
    "shape": lambda a, w: padmarlin.gemm(a, w)[:, 1:],
}


@pytest.mark.parametrize("wrong", WRONG_GEMMS)
def test_a_wrong_gemm_fails(wrong: str) -> None:
    report = verify_checkpoint(STRADDLING, tp=2, layers="*down_proj", gemm=WRONG_GEMMS[wrong])
    (layer,) = report.layers
    assert not layer.passed
    assert layer.weights_wrong == 0
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["passed"] is False


def test_changes_beside_the_layers_fail(tmp_path: Path) -> None:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.self_attn.q_proj.bias"][3] += 1
        tensors["extra"] = tensors.pop("model.norm.weight")
        tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:-1]

    other = changed(STRADDLING, tmp_path / "b", edit)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1.0}))
    report = verify_checkpoint(STRADDLING, other, tp=1)
    assert all(layer.passed for layer in report.layers)
    said = faults(report)
    for expected in (
        "q_proj.bias is not the original",
        "model.norm.weight is not in the other",
        "extra is not in the original",
        "embed_tokens.weight is (511, 256), was (512, 256): that is no padding",
        "rms_norm_eps is 1.0, was 1e-06",
    ):
        assert expected in said


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{DOWN}.scales"][0, 0] = float("inf")

    with pytest.raises(ValueError, match=r"inf at group 0, column 0.*down_proj"):
        verify_checkpoint(changed(STRADDLING, tmp_path / "b", edit), tp=2)


def crash(*_: Any, **more: Any) -> padmarlin.PaddedWeight:
    if more["shard"].rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return padmarlin.load_weight(*_, **more)


def test_a_crash_is_one_clear_error() -> None:
    with pytest.raises(RanksFailed, match=r"rank 1 was ended by SIGKILL at model\.layers"):
        verify_checkpoint(STRADDLING, tp=2, load_weight=crash)


def hang(*_: Any, **more: Any) -> padmarlin.PaddedWeight:
    if more["shard"].rank == 1:
        time.sleep(3600)
    return padmarlin.load_weight(*_, **more)


def test_a_hang_ends() -> None:
    start = time.monotonic()
    with pytest.raises(RanksFailed, match="no sign of life for 2 s"):
        verify_checkpoint(STRADDLING, tp=2, load_weight=hang, timeout=2)
    assert time.monotonic() - start < 30


ORPHANS = """
import os, sys, time
from padmarlin.verify import verify_checkpoint
def load(*_, shard, **more):
    open(os.path.join(sys.argv[2], str(os.getpid())), "w").close()
    time.sleep(3600)
verify_checkpoint(sys.argv[1], tp=2, load_weight=load)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends children on Linux alone")
def test_no_rank_outlives_a_killed_caller(tmp_path: Path) -> None:
    caller = subprocess.Popen([sys.executable, "-c", ORPHANS, str(STRADDLING), str(tmp_path)])
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2:
            assert caller.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        caller.kill()
        caller.wait()
    ranks = [int(path.name) for path in tmp_path.iterdir()]
    deadline = time.monotonic() + 10
    while any(alive(rank) for rank in ranks):
        assert time.monotonic() < deadline, ranks
        time.sleep(0.05)


def alive(process: int) -> bool:
    """A zombie, which nobody has collected yet, is not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_refusals(tmp_path: Path) -> None:
    for call, message in (
        (lambda: verify_checkpoint(tmp_path / "none"), "A: got .*existing directory"),
        (lambda: verify_checkpoint(STRADDLING, tmp_path / "none"), "B: got"),
        (lambda: verify_checkpoint(STRADDLING, layers="down"), "layers: got 'down'"),
        (lambda: verify_checkpoint(STRADDLING, tp=0), "tp: got 0"),
        (lambda: verify_checkpoint(tmp_path), "no tensors"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_ranks_are_spawned_where_a_fork_cannot_have_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    report = verify_checkpoint(STRADDLING, tp=2, layers="*down_proj")
    assert report.passed, faults(report)
