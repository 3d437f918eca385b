# SPDX-License-Identifier: Apache-2.0
"""``verify A B``, B as A folded: rows in the order that A's group numbers say, and the columns of
what makes their input in the same. Seeds: `write`'s, given with each."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from padmarlin.convert import fold_checkpoint, pad_checkpoint
from padmarlin.verify import verify_checkpoint
from tests.checkpoint_files import GPTQ
from tests.convert import made
from tests.convert.test_fold import KINDS, MODELS
from tests.verify.test_verify import DOWN, changed, faults

ACT_ORDER = next(path for path in GPTQ if "desc" in path.name)
GATE = "model.layers.0.mlp.gate_proj"


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("apart", "v1"),
        ("fused", "v2_8_bits"),
        ("experts", "compressed"),
        ("inside_words", "v1"),
        ("inside_words", "compressed"),
    ],
)
def test_a_folded_checkpoint_passes(model: str, kind: str, tmp_path: Path) -> None:
    source = made.write(tmp_path / "a", MODELS[model], KINDS[kind], seed=1)
    fold_checkpoint(source, tmp_path / "b")
    report = verify_checkpoint(source, tmp_path / "b", tp=1)
    assert report.passed, faults(report)
    assert report.kind == "folded" and report.tensors_compared


def test_over_ranks_and_with_logits(tmp_path: Path) -> None:
    fold_checkpoint(ACT_ORDER, tmp_path / "b")
    report = verify_checkpoint(ACT_ORDER, tmp_path / "b", tp=2)
    assert report.passed, faults(report)
    assert report.kind == "folded"
    assert len(report.notes) == 1 and report.notes[0].startswith("logits"), report.notes


@pytest.mark.parametrize("pattern", ["*gate_proj", "*down_proj"])
def test_some_layers_of_a_folded_checkpoint(pattern: str, tmp_path: Path) -> None:
    fold_checkpoint(ACT_ORDER, tmp_path / "b")
    report = verify_checkpoint(ACT_ORDER, tmp_path / "b", layers=pattern)
    assert report.passed and report.kind == "folded", faults(report)


def test_padded_and_then_folded(tmp_path: Path) -> None:
    pad_checkpoint(ACT_ORDER, tmp_path / "padded", tp=2)
    fold_checkpoint(tmp_path / "padded", tmp_path / "b")
    for original in (ACT_ORDER, tmp_path / "padded"):
        report = verify_checkpoint(original, tmp_path / "b", tp=2)
        assert report.passed and report.kind == "folded", faults(report)


@pytest.mark.parametrize("plain", ["bias", "weight"])
def test_plain_tensors_beside_a_folded_layer(plain: str, tmp_path: Path) -> None:
    """gate's bias, or all of gate as it was before quantization: in the same order as its rows."""
    source = made.write(tmp_path / "a", MODELS["apart"], KINDS["v1"], seed=2)
    size = 352
    generator = torch.Generator().manual_seed(2)

    def add(tensors: dict[str, Tensor]) -> None:
        shape = (size,) if plain == "bias" else (size, made.HIDDEN)
        for layer in (0, 1):
            gate = f"model.layers.{layer}.mlp.gate_proj"
            if plain == "weight":
                for suffix in ("qweight", "qzeros", "scales", "g_idx"):
                    del tensors[f"{gate}.{suffix}"]
            tensors[f"{gate}.{plain}"] = torch.randn(shape, generator=generator).half()

    a = changed(source, tmp_path / "plain", add)
    fold_checkpoint(a, tmp_path / "b")
    report = verify_checkpoint(a, tmp_path / "b", tp=1)
    assert report.passed and report.kind == "folded", faults(report)
    wrong = changed(tmp_path / "b", tmp_path / "wrong", lambda t: t[f"{GATE}.{plain}"].neg_())
    report = verify_checkpoint(a, wrong, tp=1)
    assert f"tensor {GATE}.{plain} is not the original in the order of the" in faults(report)


def _swap_rows(tensors: dict[str, Tensor]) -> None:
    tensors[f"{DOWN}.qweight"][[0, 1]] = tensors[f"{DOWN}.qweight"][[1, 0]]


def _as_it_was(name: str) -> Any:
    original = made.tensors_of(ACT_ORDER)
    return lambda t: t.update({key: v for key, v in original.items() if key.startswith(name)})


WRONG_FOLDS = {
    "rows of a group in another order": (_swap_rows, rf"{DOWN}: rank 0: stored weight at row 0"),
    "gate as it was": (_as_it_was(GATE), rf"{GATE}: rank 0: stored weight at row 0, column 0"),
    "down as it was": (_as_it_was(DOWN), rf"{GATE}: rank 0: stored weight at row 0, column 0"),
}


@pytest.mark.parametrize("wrong", WRONG_FOLDS)
def test_a_wrong_fold_fails(wrong: str, tmp_path: Path) -> None:
    edit, said = WRONG_FOLDS[wrong]
    fold_checkpoint(ACT_ORDER, tmp_path / "right")
    report = verify_checkpoint(ACT_ORDER, changed(tmp_path / "right", tmp_path / "b", edit), tp=2)
    assert not report.passed
    assert re.search(said, faults(report), re.MULTILINE), faults(report)


def test_settings_that_a_fold_does_not_change(tmp_path: Path) -> None:
    fold_checkpoint(ACT_ORDER, tmp_path / "b")
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    (tmp_path / "b" / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1.0}))
    assert "config.json: rms_norm_eps is 1.0" in faults(
        verify_checkpoint(ACT_ORDER, tmp_path / "b")
    )
