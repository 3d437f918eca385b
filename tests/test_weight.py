# SPDX-License-Identifier: Apache-2.0
"""PaddedWeight: storage round trips, and the refusal of tensors that do not belong together."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch

import padmarlin
from tests.weights import random_weight


@pytest.fixture(scope="module")
def plain():
    return random_weight(100, 70, group_size=32, symmetric=False, k_start=8).packed


@pytest.fixture(scope="module")
def gathered():
    return random_weight(100, 70, group_size=32, act_order=True).packed


def assert_same(left, right):
    assert left.state_dict().keys() == right.state_dict().keys()
    for name, tensor in left.state_dict().items():
        assert torch.equal(tensor, right.state_dict()[name]), name


@pytest.mark.parametrize("which", ["plain", "gathered"])
def test_it_round_trips_through_state_dict_and_file(which, request, tmp_path):
    weight = request.getfixturevalue(which)
    assert_same(padmarlin.PaddedWeight.from_state_dict(weight.state_dict("a.b."), "a.b."), weight)
    weight.save(tmp_path / "weight.safetensors")
    assert_same(padmarlin.PaddedWeight.load(tmp_path / "weight.safetensors"), weight)
    assert [path.name for path in tmp_path.iterdir()] == ["weight.safetensors"]


def test_sizes(plain):
    assert (plain.k, plain.n, plain.front_pad) == (100, 70, 8)
    assert (plain.padded_k, plain.padded_n) == (128, 128)
    rows = plain.scales.shape[0]
    assert plain.nbytes == 128 * 128 // 2 + 2 * (rows * 128 * 2) + 4 * 128 // 16
    assert plain.overhead == pytest.approx(128 * 128 / (100 * 70) - 1)
    assert plain.dtype == torch.float16 and plain.device == torch.device("cpu")
    assert "100" in repr(plain) and "asymmetric" in repr(plain)


def test_to_moves_but_does_not_convert(plain):
    assert_same(plain.to("cpu"), plain)
    assert plain.to("meta").device == torch.device("meta")
    with pytest.raises(TypeError, match="repack the checkpoint with dtype"):
        plain.to(torch.bfloat16)


TAMPERED = {
    "format_version": (lambda w: {"format_version": 2}, "format_version.*got 2, expected 1"),
    "bits": (lambda w: {"bits": 5}, "bits"),
    "k": (lambda w: {"k": 121}, "front_pad"),
    "k_huge": (lambda w: {"k": 10**30}, "k: got 10+, expected at most 2147483647"),
    "group_size_huge": (lambda w: {"group_size": 2**31}, "group_size: got 2147483648"),
    "sparse": (lambda w: {"scales": w.scales.to_sparse()}, "scales: got a tensor of layout"),
    "n": (lambda w: {"n": 129}, "qweight"),
    "n_small": (lambda w: {"n": 64}, "qweight"),
    "k_type": (lambda w: {"k": 100.0}, "an int"),
    "front_pad": (lambda w: {"front_pad": 64}, "front_pad"),
    "group_size": (lambda w: {"group_size": 0}, "group_size"),
    "dequant": (lambda w: {"dequant": 7}, "dequant"),
    "code_order": (lambda w: {"code_order": "w8"}, "code_order"),
    "qweight_dtype": (lambda w: {"qweight": w.qweight.float()}, "qweight"),
    "qweight_short": (lambda w: {"qweight": w.qweight[:1]}, "qweight"),
    "qweight_strided": (lambda w: {"qweight": w.qweight.transpose(0, 1)}, "contiguous"),
    "scales_dtype": (lambda w: {"scales": w.scales.float()}, "scales"),
    "scales_other_dtype": (lambda w: {"scales": w.scales.bfloat16()}, "code_order"),
    "scales_empty": (lambda w: {"scales": w.scales[:0], "zeros": w.zeros[:0]}, "scales"),
    "zeros_short": (lambda w: {"zeros": w.zeros[:-1]}, "zeros"),
    "wide_without_zeros": (lambda w: {"zeros": None, "dequant": 2}, "zeros"),
    "slice_rows_short": (lambda w: {"slice_rows": w.slice_rows[:-1]}, "slice_rows"),
    "slice_rows_out": (lambda w: {"slice_rows": w.slice_rows + 9}, "slice_rows"),
    "slice_rows_negative": (lambda w: {"slice_rows": w.slice_rows - 1}, "slice_rows"),
    "missing": (lambda w: {"scales": None}, "scales"),
    "elsewhere": (lambda w: {"scales": w.scales.to("meta")}, "scales"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_what_does_not_belong_together_is_refused(case, plain):
    change, message = TAMPERED[case]
    with pytest.raises((ValueError, TypeError), match=message):
        replace(plain, **change(plain))


@pytest.mark.parametrize("value", [-2, 100, 5])
def test_a_column_table_that_is_no_permutation_is_refused(value, gathered):
    columns = gathered.columns.clone()
    columns[columns == 4] = value
    with pytest.raises(ValueError, match="columns"):
        replace(gathered, columns=columns)


def test_a_state_dict_of_another_version_is_refused(plain):
    state = plain.state_dict()
    state["metadata"][0] = 9
    with pytest.raises(ValueError, match="format_version: got 9, expected 1"):
        padmarlin.PaddedWeight.from_state_dict(state)


@pytest.mark.parametrize("metadata", [[], [1], [1] * 30, 1])
def test_metadata_of_another_length_is_refused(metadata, plain):
    state = plain.state_dict() | {"metadata": torch.tensor(metadata)}
    with pytest.raises(ValueError, match="metadata|format_version"):
        padmarlin.PaddedWeight.from_state_dict(state)


@pytest.mark.parametrize("name", ["metadata", "qweight", "scales", "slice_rows"])
def test_a_missing_tensor_is_named(name, plain):
    state = plain.state_dict("layer.")
    del state["layer." + name]
    with pytest.raises(ValueError, match=f"layer.{name}"):
        padmarlin.PaddedWeight.from_state_dict(state, "layer.")


def test_a_broken_file_is_refused(plain, tmp_path):
    path = tmp_path / "weight.safetensors"
    plain.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="safetensors file"):
        padmarlin.PaddedWeight.load(path)


def test_tensors_that_share_memory_are_saved(gathered, tmp_path):
    words = gathered.qweight.numel()
    flat = torch.zeros(words + gathered.slice_rows.numel(), dtype=torch.int32)
    flat[:words] = gathered.qweight.flatten()
    flat[words:] = gathered.slice_rows
    qweight = flat[:words].view(gathered.qweight.shape)
    replace(gathered, qweight=qweight, slice_rows=flat[words:]).save(tmp_path / "w.safetensors")
    assert_same(padmarlin.PaddedWeight.load(tmp_path / "w.safetensors"), gathered)


@pytest.mark.parametrize(
    "path", ["", "no/such/directory/w", "a\0b", "\ud800", ".", 3, None], ids=ascii
)
def test_paths_that_name_no_file(path, plain):
    with pytest.raises(
        (TypeError, ValueError), match=r"PaddedWeight\.load: path: got .*, expected"
    ):
        padmarlin.PaddedWeight.load(path)
    with pytest.raises(
        (TypeError, ValueError), match=r"PaddedWeight\.save: path: got .*, expected"
    ):
        plain.save(path)


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"got .*, of mode p.*, expected a regular file"):
        padmarlin.PaddedWeight.load(tmp_path / "pipe")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", None, [1]])
def test_devices_that_are_not_there(device, plain, tmp_path):
    plain.save(tmp_path / "w.safetensors")
    for function in (
        plain.to,
        lambda d: padmarlin.PaddedWeight.load(tmp_path / "w.safetensors", d),
    ):
        with pytest.raises(ValueError, match="device: got .*, expected"):
            function(device)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: None,
        lambda m: m.tolist(),
        lambda m: m.double(),
        lambda m: m[0],
        lambda m: m[:0],
        lambda m: m.to("meta"),
        lambda m: m.repeat(1000),
        lambda m: m.to_sparse(),
    ],
)
def test_metadata_that_is_none(change, plain):
    state = plain.state_dict()
    state["metadata"] = change(state["metadata"])
    with pytest.raises((TypeError, ValueError), match="PaddedWeight.*: got .*, expected"):
        padmarlin.PaddedWeight.from_state_dict(state)


@pytest.mark.parametrize("arguments", [(None,), ([],), ({},), ({}, 3)])
def test_states_that_are_none(arguments):
    with pytest.raises((TypeError, ValueError), match="from_state_dict: .*: got .*, expected"):
        padmarlin.PaddedWeight.from_state_dict(*arguments)


def test_meta_tensors_have_nothing_to_save_or_to_dequantize(plain, tmp_path):
    with pytest.raises(TypeError, match="save: self: got a meta tensor"):
        plain.to("meta").save(tmp_path / "w")
    with pytest.raises(TypeError, match="dequantize: weight: got a meta tensor"):
        padmarlin.dequantize(plain.to("meta"))
