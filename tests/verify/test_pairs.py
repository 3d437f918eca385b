# SPDX-License-Identifier: Apache-2.0
"""``verify A B``: B as A padded, and as A repacked."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from padmarlin.cli import app
from padmarlin.convert import pad_checkpoint
from padmarlin.shards import repack_checkpoint
from padmarlin.verify import verify_checkpoint
from padmarlin.verify.logits import compare_logits
from tests.checkpoint_files import AWQ, COMPRESSED_TENSORS, GPTQ, REAL
from tests.verify.test_verify import DOWN, STRADDLING, changed, faults

UP = "model.layers.0.mlp.up_proj"
ACT_ORDER = next(path for path in GPTQ if "desc" in path.name)


@pytest.mark.parametrize("directory", REAL, ids=lambda path: path.name)
def test_a_padded_checkpoint_passes(tmp_path: Path, directory: Path) -> None:
    pad_checkpoint(directory, tmp_path / "b", tp=2)
    report = verify_checkpoint(directory, tmp_path / "b", tp=2)
    assert report.passed, faults(report)
    assert report.kind == "padded"
    assert report.tensors_compared == 7
    grown = {layer.name.rpartition(".")[2] for layer in report.layers if 512 in (layer.k, layer.n)}
    if "i384" in directory.name:
        assert grown == {"gate_proj", "up_proj", "down_proj"}


WRONG_PADDINGS = {
    # What is wrong in the padded tensors, and what is said of it. 384 were there before.
    "a new weight is not 0": (
        lambda t: t[f"{DOWN}.qweight"][-1].add_(1),
        r"down_proj: rank 1: stored weight at row 504.*expected 0$",
    ),
    "an old weight changed": (
        lambda t: t[f"{UP}.qweight"][0, 0].bitwise_xor_(1),
        r"up_proj: rank 0: stored weight at row 0, column 0",
    ),
    "a scale changed": (
        lambda t: t[f"{DOWN}.scales"][1, 3].mul_(1.01),
        r"down_proj: .*stored weight at row 1\d\d, column 3",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_PADDINGS)
def test_a_wrong_padding_fails(tmp_path: Path, wrong: str) -> None:
    edit, said = WRONG_PADDINGS[wrong]
    pad_checkpoint(STRADDLING, tmp_path / "right", tp=2)
    other = changed(tmp_path / "right", tmp_path / "b", edit)
    report = verify_checkpoint(STRADDLING, other, tp=2)
    assert not report.passed
    assert re.search(said, faults(report), re.MULTILINE), faults(report)


LAYERS_REFUSED = {
    # padmarlin refuses the layer of B; the independent reader refuses it, too.
    "qzeros": r"up_proj: (rank \d: )?refused: load_weight: .*expected 8 everywhere, as sym=True",
    "g_idx": r"^layer model.layers.0.mlp.up_proj of B cannot be read: verify: .*g_idx",
}


@pytest.mark.parametrize("damaged", LAYERS_REFUSED)
def test_a_layer_that_is_refused_differs_and_the_others_are_compared(
    damaged: str, tmp_path: Path
) -> None:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        words = tensors[f"{UP}.{damaged}"]
        words[(0,) * words.dim()] ^= 1 << 20

    other = changed(STRADDLING, tmp_path / "b", edit)
    report = verify_checkpoint(STRADDLING, other, tp=2)
    assert re.search(LAYERS_REFUSED[damaged], faults(report), re.MULTILINE), faults(report)
    assert [layer.name for layer in report.layers if not layer.passed] in ([UP], [])
    assert sum(layer.passed for layer in report.layers) == 6
    done = CliRunner().invoke(app, ["verify", str(STRADDLING), str(other), "--json"])
    assert done.exit_code == 1, done.output
    assert json.loads(done.stdout)["passed"] is False
    # Where A itself is damaged, that is bad input.
    with pytest.raises(ValueError, match="g_idx" if damaged == "g_idx" else "sym=True"):
        verify_checkpoint(other, other, tp=2)


def test_a_padding_of_one_side_fails(tmp_path: Path) -> None:
    pad_checkpoint(STRADDLING, tmp_path / "b", tp=2)
    original = load_file(STRADDLING / "model.safetensors")
    tensors = load_file(tmp_path / "b" / "model.safetensors")
    tensors |= {name: t for name, t in original.items() if name.startswith(UP)}
    save_file(tensors, tmp_path / "b" / "model.safetensors")
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    config["intermediate_size"] = 400
    (tmp_path / "b" / "config.json").write_text(json.dumps(config))
    report = verify_checkpoint(tmp_path / "b", STRADDLING, tp=1)
    assert "no padding" in faults(report)  # the wrong way round
    report = verify_checkpoint(STRADDLING, tmp_path / "b", tp=1)
    assert "intermediate_size is 400, was 384" in faults(report)


@pytest.mark.parametrize("grown, passes", [((512, 512), True), ((512, 384), False)])
def test_plain_tensors_and_fused_halves(
    tmp_path: Path, grown: tuple[int, int], passes: bool
) -> None:
    """Zeros after each half of gate_up_proj, in its bias too. Seed 5."""
    generator = torch.Generator().manual_seed(5)
    halves = torch.randn(2, 384, 16, generator=generator)
    biases = torch.randn(2, 384, generator=generator)
    down = torch.randn(16, 384, generator=generator)
    norm = torch.randn(16, generator=generator)

    def write(directory: Path, up: int, inner: int) -> Path:
        directory.mkdir()
        wide, bias, narrow = torch.zeros(2, up, 16), torch.zeros(2, up), torch.zeros(16, inner)
        wide[:, :384], bias[:, :384], narrow[:, :384] = halves, biases, down
        tensors = {
            "layers.0.mlp.gate_up_proj.weight": wide.reshape(-1, 16),
            "layers.0.mlp.gate_up_proj.bias": bias.reshape(-1),
            "layers.0.mlp.down_proj.weight": narrow,
            "layers.0.norm.weight": norm,
        }
        save_file(tensors, directory / "model.safetensors")
        return directory

    a = write(tmp_path / "a", 384, 384)
    report = verify_checkpoint(a, write(tmp_path / "b", *grown))
    assert report.passed == passes, faults(report)
    if not passes:
        return
    for name in ("gate_up_proj.weight", "gate_up_proj.bias"):
        # Zeros at the end of the whole, not of each half.
        tensors = load_file(tmp_path / "b" / "model.safetensors")
        fused = tensors[f"layers.0.mlp.{name}"]
        wrong = torch.zeros_like(fused)
        wrong[:768] = load_file(a / "model.safetensors")[f"layers.0.mlp.{name}"]
        other = tmp_path / name
        shutil.copytree(tmp_path / "b", other)
        save_file({**tensors, f"layers.0.mlp.{name}": wrong}, other / "model.safetensors")
        report = verify_checkpoint(a, other)
        assert faults(report).startswith(f"tensor layers.0.mlp.{name} is not the original extended")


@pytest.mark.parametrize("directory", [STRADDLING, ACT_ORDER, AWQ, COMPRESSED_TENSORS])
def test_a_repacked_checkpoint_passes(tmp_path: Path, directory: Path) -> None:
    repack_checkpoint(directory, tmp_path / "b", tp=2)
    report = verify_checkpoint(directory, tmp_path / "b")
    assert report.passed, faults(report)
    assert (report.kind, report.tp, report.tensors_compared) == ("repacked", 2, 7)


def test_a_repacked_checkpoint_of_another_dtype_passes(tmp_path: Path) -> None:
    repack_checkpoint(STRADDLING, tmp_path / "b", tp=2, dtype=torch.bfloat16, others=False)
    report = verify_checkpoint(STRADDLING, tmp_path / "b")
    assert report.passed, faults(report)
    assert report.notes == ("B holds no tensors but the quantized layers",)


def test_a_changed_repack_fails(tmp_path: Path) -> None:
    done = repack_checkpoint(STRADDLING, tmp_path / "b", tp=2)
    file = tmp_path / "b" / done.layers[DOWN].files[1]
    tensors = load_file(file)
    tensors[f"{DOWN}.scales"][0, 9] *= 1.01
    save_file(tensors, file)
    other = tmp_path / "b" / done.others["model.norm.weight"]
    tensors = load_file(other)
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, other)
    report = verify_checkpoint(STRADDLING, tmp_path / "b")
    said = faults(report)
    assert "down_proj: rank 1: scales is not what a fresh repack gives" in said
    assert "padmarlin's weight" in said
    assert "model.norm.weight is not the original" in said
    assert [layer.name for layer in report.layers if not layer.passed] == [DOWN]
    with pytest.raises(ValueError, match="tp: got 3, expected 2"):
        verify_checkpoint(STRADDLING, tmp_path / "b", tp=3)
    with pytest.raises(ValueError, match="pass the original first"):
        verify_checkpoint(tmp_path / "b")


def test_logits(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    pad_checkpoint(STRADDLING, tmp_path / "b", tp=2)
    fault, note = compare_logits(STRADDLING, tmp_path / "b")
    assert fault == "" and note.startswith("logits agree"), (fault, note)

    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{DOWN}.scales"][:, :8] *= 1.5

    wrong = changed(STRADDLING, tmp_path / "wrong", edit)
    fault, note = compare_logits(STRADDLING, wrong)
    assert note == "" and fault.startswith("logits differ by"), (fault, note)
