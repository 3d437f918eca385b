# SPDX-License-Identifier: Apache-2.0
"""``fold_checkpoint``: the MLP computes the same, and its output layer has no act-order any more.

Seeds: `write`'s, 1 to 9.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from padmarlin.convert import fold_checkpoint, pad_checkpoint, unpad_checkpoint
from tests import checkpoint_files
from tests.convert import made
from tests.convert.test_pad import assert_same_folders

MODELS = {
    "apart": made.qwen2(352),
    "fused": made.phi3(352),
    "experts": made.qwen2_moe(96, 160),
    "inside_words": made.qwen2(345),
}
KINDS: dict[str, Any] = {
    "v1": made.gptq(4, 32, act_order=True),
    "v2_8_bits": made.gptq(8, 32, act_order=True, checkpoint_format="gptq_v2"),
    "ragged_group": made.gptq(4, 128, act_order=True),
    "compressed": made.compressed(4, 32, False, act_order=True),
}


def group_index(folder: Path, name: str) -> np.ndarray | None:
    tensors = made.tensors_of(folder)
    for suffix in ("g_idx", "weight_g_idx"):
        if f"{name}.{suffix}" in tensors:
            return tensors[f"{name}.{suffix}"].numpy()
    return None


def assert_folded(before: Path, after: Path, name: str, group_size: int) -> None:
    """The rows of the output are sorted by group, and its inputs' columns stand as the rows do."""
    groups = group_index(before, name)
    order = np.argsort(groups, kind="stable")
    k = len(order)
    assert np.array_equal(group_index(after, name), np.arange(k) // group_size)
    assert np.array_equal(made.dequantized(after, name), made.dequantized(before, name)[order])
    block = name.rpartition(".")[0]
    tensors = made.tensors_of(before)
    for part in ("gate_proj", "up_proj", "gate_up_proj"):
        module = f"{block}.{part}"
        if any(tensor.startswith(f"{module}.") for tensor in tensors):
            old, new = made.dequantized(before, module), made.dequantized(after, module)
            columns = np.concatenate([order + start for start in range(0, old.shape[1], k)])
            assert np.array_equal(new, old[:, columns]), module
            bias = tensors.get(f"{module}.bias")
            if bias is not None:
                folded = made.tensors_of(after)[f"{module}.bias"]
                assert torch.equal(folded, bias[torch.from_numpy(columns)]), module


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", MODELS)
def test_the_order_of_rows_and_columns_changes_and_nothing_else(
    model: str, kind: str, tmp_path: Path
) -> None:
    source = made.write(tmp_path / "in", MODELS[model], KINDS[kind], seed=1, biases=True)
    report = fold_checkpoint(source, tmp_path / "out")
    group_size = 128 if kind == "ragged_group" else 32
    outputs = [
        name
        for name, (k, _) in MODELS[model][1].items()
        if name.endswith("down_proj") and k > group_size
    ]
    assert report.folded == len(outputs) and not report.left
    for name in outputs:
        assert_folded(source, tmp_path / "out", name, group_size)
    # Where a group is as long as the hidden size, the inputs have no act-order to keep.
    assert report.act_order == (kind != "ragged_group")
    assert not any("down_proj" in name for name in report.kept)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    same = config == json.loads((source / "config.json").read_text())
    assert same == report.act_order


@pytest.mark.parametrize("kind", [KINDS["v1"], KINDS["compressed"]], ids=["gptq", "compressed"])
@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
@pytest.mark.parametrize("order", ["group", "Dynamic", True])
def test_settings_without_act_order_where_none_is_left(
    kind: Any, key: str, order: Any, tmp_path: Path
) -> None:
    source = made.write(tmp_path / "in", made.qwen2(352), kind, seed=2, files=2)
    config = json.loads((source / "config.json").read_text())
    config[key] = settings = config.pop("quantization_config")
    if "config_groups" in settings:
        settings["config_groups"]["group_0"]["weights"]["actorder"] = order
    (source / "config.json").write_text(json.dumps(config))
    for file in source.glob("*.safetensors"):
        tensors = made.load_file(file)
        for name, tensor in tensors.items():
            if name.endswith("g_idx") and "down_proj" not in name:
                tensors[name] = (torch.arange(len(tensor)) // 32).to(torch.int32)
        save_file(tensors, file, metadata={"format": "pt"})
    report = fold_checkpoint(source, tmp_path / "out")
    assert report.folded == 2 and not report.act_order
    config = json.loads((tmp_path / "out" / "config.json").read_text())[key]
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    tensors = made.tensors_of(tmp_path / "out")
    assert index["weight_map"].keys() == tensors.keys()
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values())
    if config["quant_method"] == "gptq":
        assert config["desc_act"] is False
    else:
        assert config["config_groups"]["group_0"]["weights"]["actorder"] is None
        assert not any(name.endswith("weight_g_idx") for name in tensors)


def test_folding_a_padded_model(tmp_path: Path) -> None:
    source = made.write(tmp_path / "in", made.qwen2(352), KINDS["v1"], seed=3)
    pad_checkpoint(source, tmp_path / "padded", tp=2)
    fold_checkpoint(tmp_path / "padded", tmp_path / "folded")
    unpad_checkpoint(tmp_path / "folded", tmp_path / "out")
    fold_checkpoint(source, tmp_path / "expected")
    assert_same_folders(tmp_path / "out", tmp_path / "expected")


def test_real_checkpoint(tmp_path: Path) -> None:
    source = next(path for path in checkpoint_files.GPTQ if "desc" in path.name)
    report = fold_checkpoint(source, tmp_path / "out")
    assert report.folded == 1
    assert_folded(source, tmp_path / "out", "model.layers.0.mlp.down_proj", 64)


def test_groups_of_other_sizes_are_left(tmp_path: Path) -> None:
    source = made.write(tmp_path / "in", made.qwen2(352, depth=1), KINDS["v1"], seed=4)
    tensors = made.tensors_of(source)
    groups = tensors["model.layers.0.mlp.down_proj.g_idx"]
    groups[groups == 3] = 4
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(ValueError, match="fold: IN: .*down_proj keeps its act-order: its groups"):
        fold_checkpoint(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_to_fold(tmp_path: Path) -> None:
    source = made.write(tmp_path / "in", made.qwen2(352), made.gptq(), seed=5)
    with pytest.raises(ValueError, match="fold: IN: got no output layer .* in act-order"):
        fold_checkpoint(source, tmp_path / "out")
