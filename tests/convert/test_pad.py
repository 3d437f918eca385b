# SPDX-License-Identifier: Apache-2.0
"""``pad_checkpoint`` and ``unpad_checkpoint``: padded layers are the originals and zeros, by an
independent reading; strict Marlin takes every cut; unpadding gives the same bytes.

Seeds: `write`'s, 1 to 20.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import padmarlin
from padmarlin.convert import pad_checkpoint, unpad_checkpoint
from tests import checkpoint_files
from tests.convert import made

CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "gptq": (made.qwen2(352), made.gptq(), {}),
    "gptq_v2": (made.qwen2(352), made.gptq(checkpoint_format="gptq_v2"), {}),
    "gptq_ragged_group": (made.qwen2(352), made.gptq(group_size=128), {"files": 3}),
    "gptq_8_bits": (made.qwen2(352), made.gptq(8, 64), {"biases": True}),
    "gptq_act_order": (made.qwen2(352), made.gptq(4, 32, act_order=True), {"files": 2}),
    "gptq_act_order_ragged": (made.qwen2(352), made.gptq(4, 128, act_order=True), {}),
    "gptq_one_group": (made.qwen2(352), made.gptq(4, -1), {}),
    "gptq_symmetric": (made.qwen2(352), made.gptq(4, 32, symmetric=True), {}),
    "gptq_inside_words": (made.qwen2(350), made.gptq(4, 32), {"biases": True}),
    "gptq_8_bits_inside_words": (made.qwen2(349), made.gptq(8, 32), {}),
    "gptq_fused": (made.phi3(352), made.gptq(), {"biases": True}),
    "gptq_fused_inside_words": (made.phi3(345), made.gptq(), {}),
    "awq": (made.qwen2(352), made.awq(), {"biases": True}),
    "awq_ragged_group": (made.qwen2(352), made.awq(128), {}),
    "awq_fused": (made.phi3(352), made.awq(), {}),
    "awq_inside_words": (made.qwen2(348), made.awq(), {}),
    "compressed": (made.qwen2(352), made.compressed(), {"biases": True}),
    "compressed_asymmetric": (made.qwen2(352), made.compressed(symmetric=False), {}),
    "compressed_8_bits_channel": (made.qwen2(352), made.compressed(8, -1, False), {}),
    "compressed_act_order": (made.qwen2(352), made.compressed(4, 32, False, True), {}),
    "compressed_inside_words": (made.qwen2(350), made.compressed(4, 128, False), {}),
    "compressed_fused": (made.phi3(352), made.compressed(symmetric=False), {}),
    "fp16": (made.qwen2(352), made.plain(), {"files": 2, "biases": True}),
    "bf16": (made.qwen2(350), made.plain(torch.bfloat16), {}),
    "fp32_fused": (made.phi3(352), made.plain(torch.float32), {"biases": True}),
    "experts": (made.qwen2_moe(96, 160), made.gptq(), {"files": 2}),
    "experts_fp16": (made.qwen2_moe(96, 160), made.plain(), {}),
    "experts_mixtral": (made.mixtral(224), made.awq(), {}),
    "shared_of_several_sizes": (made.deepseek(96, 224), made.gptq(), {}),
}
PARTS = {"gate_up_proj": 2}
OUTPUTS = ("down_proj", "w2")

every_case = pytest.mark.parametrize("case", CASES)


def source_of(case: str, tmp_path: Path) -> Path:
    model, kind, more = CASES[case]
    return made.write(tmp_path / "in", model, kind, seed=list(CASES).index(case), **more)


def assert_same_folders(got: Path, expected: Path) -> None:
    names = {str(p.relative_to(expected)) for p in expected.rglob("*") if p.is_file()}
    assert {str(p.relative_to(got)) for p in got.rglob("*") if p.is_file()} == names
    for name in sorted(names):
        assert (got / name).read_bytes() == (expected / name).read_bytes(), name


def assert_extended(case_layers: dict[str, tuple[int, int]], before: Path, after: Path) -> None:
    """Every padded layer is the original and exact zeros after each of its parts; biases too."""
    old_tensors, new_tensors = made.tensors_of(before), made.tensors_of(after)
    for name in case_layers:
        old, new = made.dequantized(before, name), made.dequantized(after, name)
        parts = PARTS.get(name.rpartition(".")[2], 1)
        axis = 0 if name.endswith(OUTPUTS) else 1
        assert new.shape[axis] > old.shape[axis], name
        assert new.shape[1 - axis] == old.shape[1 - axis], name
        pieces = np.split(old, parts, axis)
        growth = (new.shape[axis] - old.shape[axis]) // parts
        pad = [(0, growth), (0, 0)] if axis == 0 else [(0, 0), (0, growth)]
        expected = np.concatenate([np.pad(piece, pad) for piece in pieces], axis)
        wrong = np.argwhere(new != expected)
        assert len(wrong) == 0, f"{name} differs first at {wrong[0].tolist()}"
        bias = f"{name}.bias"
        if bias in old_tensors:
            halves = old_tensors[bias].chunk(parts)
            if axis == 1:
                halves = [torch.nn.functional.pad(half, (0, growth)) for half in halves]
            assert torch.equal(torch.cat(list(halves)), new_tensors[bias]), bias


@every_case
def test_padded_layers_are_the_originals_and_zeros(case: str, tmp_path: Path) -> None:
    source, out = source_of(case, tmp_path), tmp_path / "out"
    pad_checkpoint(source, out, tp=2)
    layers = CASES[case][0][1]
    assert_extended(layers, source, out)
    old, new = made.tensors_of(source), made.tensors_of(out)
    assert old.keys() == new.keys()
    for name, tensor in old.items():
        if name.rpartition(".")[0] not in layers:
            assert torch.equal(tensor, new[name]), name
    for name in new:
        if name.endswith("scales") or name.endswith("weight_scale"):
            assert new[name].isfinite().all() and new[name].abs().max() == old[name].abs().max()


@every_case
def test_unpadding_gives_the_same_bytes(case: str, tmp_path: Path) -> None:
    source = source_of(case, tmp_path)
    pad_checkpoint(source, tmp_path / "out", tp=4)
    unpad_checkpoint(tmp_path / "out", tmp_path / "back")
    assert_same_folders(tmp_path / "back", source)


@every_case
def test_strict_marlin_takes_every_cut(case: str, tmp_path: Path) -> None:
    source, out = source_of(case, tmp_path), tmp_path / "out"
    pad_checkpoint(source, out, tp=8)
    quantization = CASES[case][1][1] or {}
    group_size = quantization.get("group_size", 128)
    if "config_groups" in quantization:
        weights = quantization["config_groups"]["group_0"]["weights"]
        group_size = weights["group_size"] or -1
    for name in CASES[case][0][1]:
        k, n = made.dequantized(out, name).shape
        parts = PARTS.get(name.rpartition(".")[2], 1)
        for tp in (2, 4, 8):
            axis = "k" if name.endswith(OUTPUTS) else "n"
            found = padmarlin.plan(k, n // parts, group_size=group_size, tp=tp, axis=axis)
            assert found.strict_marlin, str(found)


@pytest.mark.parametrize("kind", [made.gptq(), made.gptq(8), made.compressed(symmetric=False)])
def test_what_fills_words_is_kept(kind: Any, tmp_path: Path) -> None:
    source = made.write(tmp_path / "in", made.qwen2(345), kind, seed=10)
    tensors = made.tensors_of(source)
    bits = kind[1].get("bits", 4)
    # 345 codes leave all but the first place of the last word empty.
    words = -(-345 * bits // 32)
    packed_along = {"qweight": 0, "weight_packed": 1, "qzeros": 1, "weight_zero_point": 0}
    for name, tensor in tensors.items():
        axis = packed_along.get(name.rpartition(".")[2])
        if axis is not None and tensor.shape[axis] == words:
            tensor.select(axis, -1).bitwise_or_(0x5A5A5A5A & ~(2**bits - 1))
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    pad_checkpoint(source, tmp_path / "out", tp=2)
    assert json.loads((tmp_path / "out" / "padmarlin_padding.json").read_text())["fillings"]
    assert_extended(made.qwen2(345)[1], source, tmp_path / "out")
    unpad_checkpoint(tmp_path / "out", tmp_path / "back")
    assert_same_folders(tmp_path / "back", source)


def test_padding_is_the_least(tmp_path: Path) -> None:
    source = made.write(tmp_path / "in", made.qwen2(352), made.gptq(), seed=1)
    sizes = {}
    for tp, multiple in ((1, None), (2, None), (3, None), (8, 32), (1, 96)):
        out = tmp_path / f"out-{tp}-{multiple}"
        pad_checkpoint(source, out, tp=tp, multiple=multiple)
        sizes[tp, multiple] = json.loads((out / "config.json").read_text())["intermediate_size"]
    assert sizes == {(1, None): 384, (2, None): 512, (3, None): 384, (8, 32): 512, (1, 96): 384}


def test_what_fits_is_copied(tmp_path: Path) -> None:
    source = made.write(tmp_path / "in", made.qwen2(512), made.gptq(), seed=2)
    report = pad_checkpoint(source, tmp_path / "out", tp=4)
    assert report.layers == 0 and report.bytes_before == report.bytes_after
    unpad_checkpoint(tmp_path / "out", tmp_path / "back")
    assert_same_folders(tmp_path / "back", source)


def test_config_index_and_record(tmp_path: Path) -> None:
    source = made.write(tmp_path / "in", made.qwen2_moe(96, 160), made.gptq(), seed=3, files=2)
    pad_checkpoint(source, tmp_path / "out", tp=2)
    before = json.loads((source / "config.json").read_text())
    after = json.loads((tmp_path / "out" / "config.json").read_text())
    record = json.loads((tmp_path / "out" / "padmarlin_padding.json").read_text())
    assert after.pop("padmarlin_padding")["sizes"] == record["sizes"]
    changed = {key: after[key] for key in before if after[key] != before[key]}
    # Nothing has the dense size, so that its key stays.
    assert changed == {"moe_intermediate_size": 256, "shared_expert_intermediate_size": 256}
    assert {tuple(s["path"]): s["original"] for s in record["sizes"]} == {
        ("moe_intermediate_size",): 96,
        ("shared_expert_intermediate_size",): 160,
    }
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    tensors = made.tensors_of(tmp_path / "out")
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values())


def test_nested_config(tmp_path: Path) -> None:
    source = made.write(tmp_path / "in", made.qwen2(352), made.plain(), seed=4)
    config = json.loads((source / "config.json").read_text())
    vision = {"intermediate_size": 352, "note": "another tower's"}
    nested = {"model_type": "qwen2_vl", "vision_config": vision, "text_config": config}
    (source / "config.json").write_text(json.dumps(nested))
    pad_checkpoint(source, tmp_path / "out", tp=2)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["text_config"]["intermediate_size"] == 512
    assert written["vision_config"] == vision
    unpad_checkpoint(tmp_path / "out", tmp_path / "back")
    assert_same_folders(tmp_path / "back", source)


@pytest.mark.parametrize("model", [made.qwen2, made.phi3], ids=["apart", "fused"])
def test_unknown_architectures_by_their_tensors(model: Any, tmp_path: Path) -> None:
    config, layers = model(352)
    config = {**config, "model_type": "never heard of"}
    source = made.write(tmp_path / "in", (config, layers), made.gptq(), seed=11)
    pad_checkpoint(source, tmp_path / "out", tp=2)
    assert_extended(layers, source, tmp_path / "out")
    config.pop("intermediate_size")
    (tmp_path / "other").mkdir()
    source = made.write(tmp_path / "other" / "in", (config, layers), made.gptq(), seed=12)
    with pytest.raises(ValueError, match="pad: config.json: got no key that says 352"):
        pad_checkpoint(source, tmp_path / "out2", tp=2)


@pytest.mark.parametrize("directory", checkpoint_files.REAL, ids=lambda path: path.name)
def test_real_checkpoints(directory: Path, tmp_path: Path) -> None:
    pad_checkpoint(directory, tmp_path / "out", tp=8)
    layers = {name: (0, 0) for name in checkpoint_files.QUANTIZED_LAYERS if ".mlp." in name}
    assert_extended(layers, directory, tmp_path / "out")
    for name in layers:
        old, new = (padmarlin.load_weight(d, name) for d in (directory, tmp_path / "out"))
        assert new.dequant == old.dequant, name
        whole = padmarlin.dequantize(new)[: old.k, : old.n]
        assert torch.equal(whole, padmarlin.dequantize(old)), name
    unpad_checkpoint(tmp_path / "out", tmp_path / "back")
    assert_same_folders(tmp_path / "back", directory)


@pytest.mark.parametrize("kind", [made.gptq(), made.awq(), made.compressed(8, 64, False)])
@pytest.mark.parametrize("model", [made.qwen2, made.phi3], ids=["apart", "fused"])
def test_unpadding_after_a_quantization(model: Any, kind: Any, tmp_path: Path) -> None:
    """The quantizer writes new files, and of ours keeps only keys of config.json."""
    source = made.write(tmp_path / "in", model(352), made.plain(), seed=5)
    pad_checkpoint(source, tmp_path / "padded", tp=2, group_size=64)
    padded = json.loads((tmp_path / "padded" / "config.json").read_text())
    assert padded["intermediate_size"] == 512
    quantized = made.write(tmp_path / "quantized", (padded, model(512)[1]), kind, seed=6)
    unpad_checkpoint(quantized, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["intermediate_size"] == 352 and "padmarlin_padding" not in config
    for name, (k, n) in model(352)[1].items():
        new, old = made.dequantized(tmp_path / "out", name), made.dequantized(quantized, name)
        assert new.shape == (k, n)
        parts = PARTS.get(name.rpartition(".")[2], 1)
        halves = [half[:, : n // parts] for half in np.split(old, parts, 1)]
        expected = np.concatenate(halves, 1)[:k]
        assert np.array_equal(new, expected), name
        assert padmarlin.load_weight(tmp_path / "out", name).k == k


def test_act_order_quantized_after_padding_cannot_be_cut(tmp_path: Path) -> None:
    source = made.write(tmp_path / "in", made.qwen2(352), made.plain(), seed=7)
    pad_checkpoint(source, tmp_path / "padded", tp=2)
    padded = json.loads((tmp_path / "padded" / "config.json").read_text())
    shuffled = made.gptq(4, 32, act_order=True)
    quantized = made.write(tmp_path / "quantized", (padded, made.qwen2(512)[1]), shuffled, seed=8)
    with pytest.raises(
        ValueError, match="unpad: layer 'model.layers.0.mlp.down_proj': .*act-order"
    ):
        unpad_checkpoint(quantized, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_layers_of_other_names_than_the_model_types_are_named(tmp_path: Path) -> None:
    config, layers = made.qwen2(352)
    moved = {name.replace("model.", "model.language_model."): size for name, size in layers.items()}
    source = made.write(tmp_path / "in", (config, moved), made.gptq(), seed=14)
    message = (
        r"no tensors of model.layers.*, but of model.language_model.layers.*rename the tensors"
    )
    with pytest.raises(ValueError, match=message):
        pad_checkpoint(source, tmp_path / "out", tp=2)
    assert not (tmp_path / "out").exists()


def test_norm_over_the_padded_axis_is_left(tmp_path: Path) -> None:
    source = made.write(tmp_path / "in", made.qwen2(352), made.plain(), seed=9)
    save_file({"model.layers.0.mlp.ffn_norm.weight": torch.ones(352)}, source / "n.safetensors")
    with pytest.raises(ValueError, match="ffn_norm.weight.*norm over the padded axis"):
        pad_checkpoint(source, tmp_path / "out", tp=2)
    assert not (tmp_path / "out").exists()


def test_weights_in_other_files_are_left_and_said(tmp_path: Path) -> None:
    source = made.write(tmp_path / "in", made.qwen2(352), made.plain(), seed=13, files=2)
    (source / "pytorch_model.bin").write_bytes(b"the same weights")
    save_file({"layers.0.w1": torch.ones(3)}, source / "consolidated.safetensors")
    report = pad_checkpoint(source, tmp_path / "out", tp=2)
    assert [line.partition(" ")[0] for line in report.left[-2:]] == [
        "consolidated.safetensors",
        "pytorch_model.bin",
    ]
    unpad_checkpoint(tmp_path / "out", tmp_path / "back")
    assert_same_folders(tmp_path / "back", source)


def test_attention_is_left_and_said(tmp_path: Path) -> None:
    report = pad_checkpoint(checkpoint_files.GPTQ[0], tmp_path / "out", tp=2)
    assert report.left == ()
    report = pad_checkpoint(checkpoint_files.GPTQ[0], tmp_path / "out4", tp=4)
    assert len(report.left) == 1 and "self_attn.o_proj stays" in report.left[0]
