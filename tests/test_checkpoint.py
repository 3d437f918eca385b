# SPDX-License-Identifier: Apache-2.0
"""``load_weight`` on real checkpoints against their references, and on made ones against
``repack_gptq`` of the whole tensors; that it reads no more than it needs.

Seeds: random_layer's, given with each case.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import padmarlin
from padmarlin import PaddedWeight, Shard, load_weight
from padmarlin.checkpoint import tensors as tensors_module
from tests import checkpoint_files as files
from tests.kernels import cuda_skip_reason

# Relative Frobenius error of a product against float64: rounding the result once costs at most
# half a unit in the last place, 2^-11 = 4.9e-4 in fp16 and 2^-8 = 3.9e-3 in bf16.
TOLERANCE = {torch.float16: 6e-4, torch.bfloat16: 5e-3}

every_checkpoint = pytest.mark.parametrize("directory", files.REAL, ids=lambda path: path.name)
every_gptq = pytest.mark.parametrize("directory", files.GPTQ, ids=lambda path: path.name)
every_layer = pytest.mark.parametrize("layer", files.QUANTIZED_LAYERS, ids=lambda n: n[15:])


def relative_error(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected.double()).norm() / expected.double().norm())


def assert_same_weight(got: PaddedWeight, expected: PaddedWeight) -> None:
    """Every tensor and number, bit for bit."""
    state, wanted = got.state_dict(), expected.state_dict()
    assert state.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert state[name].dtype == tensor.dtype, name
        assert state[name].shape == tensor.shape, name
        different = (state[name] != tensor).nonzero()
        assert different.numel() == 0, f"{name} differs first at {different[0].tolist()}"


def part_of(weight: Tensor, shard: Shard) -> Tensor:
    start, stop = shard.bounds(weight.shape[0 if shard.axis == "k" else 1])
    return weight[start:stop] if shard.axis == "k" else weight[:, start:stop]


def shards(axis: str, size: int) -> list[list[Shard]]:
    """All ranks of every tensor-parallel size up to 4 that divides ``size``."""
    sizes = [tp for tp in range(1, 5) if size % tp == 0]
    return [[Shard(axis, rank, tp) for rank in range(tp)] for tp in sizes]


@every_checkpoint
@every_layer
def test_whole_weight_is_the_quantizers_own_bit_for_bit(directory: Path, layer: str) -> None:
    dequantized = padmarlin.dequantize(load_weight(directory, layer, dtype=torch.float16))
    digest = hashlib.sha256(dequantized.numpy().tobytes()).hexdigest()
    assert dequantized.dtype == torch.float16
    assert digest == str(files.reference(directory, layer, "sha256_w_fp16"))


@pytest.mark.parametrize("axis", ["k", "n"])
@every_checkpoint
@every_layer
def test_every_cut_dequantizes_and_multiplies(directory: Path, layer: str, axis: str) -> None:
    whole = padmarlin.dequantize(load_weight(directory, layer, dtype=torch.float16))
    x = torch.from_numpy(files.reference(directory, layer, "x"))
    y = torch.from_numpy(files.reference(directory, layer, "y_nobias"))
    for ranks in shards(axis, whole.shape[0 if axis == "k" else 1]):
        products = []
        for shard in ranks:
            weight = load_weight(directory, layer, shard=shard, dtype=torch.float16)
            expected = part_of(whole, shard)
            assert torch.equal(padmarlin.dequantize(weight), expected), shard
            own_x = part_of(x.T, shard).T if axis == "k" else x
            products.append(padmarlin.gemm(own_x, weight))
            error = relative_error(products[-1], own_x.double() @ expected.double())
            assert error < TOLERANCE[torch.float16], (shard, error)
        total = sum(p.float() for p in products) if axis == "k" else torch.cat(products, dim=1)
        assert relative_error(total, y) < TOLERANCE[torch.float16], ranks


@every_checkpoint
@every_layer
def test_bfloat16(directory: Path, layer: str) -> None:
    x = torch.from_numpy(files.reference(directory, layer, "x")).bfloat16()
    for shard in (None, *shards("k", x.shape[1])[1]):
        weight = load_weight(directory, layer, shard=shard, dtype=torch.bfloat16)
        own_x = x if shard is None else part_of(x.T, shard).T
        expected = own_x.double() @ padmarlin.dequantize(weight).double()
        error = relative_error(padmarlin.gemm(own_x, weight), expected)
        assert error < TOLERANCE[torch.bfloat16], (shard, error)


@pytest.mark.gpu
@every_checkpoint
@every_layer
def test_cuda_repack_gives_the_same_bits(directory: Path, layer: str) -> None:
    reason = cuda_skip_reason()
    if reason is not None:
        pytest.skip(reason)
    for shard in (None, Shard("k", 1, 2), Shard("n", 1, 2)):
        on_gpu = load_weight(directory, layer, shard=shard, device="cuda")
        assert on_gpu.device.type == "cuda"
        assert_same_weight(on_gpu.to("cpu"), load_weight(directory, layer, shard=shard))


@every_gptq
@pytest.mark.parametrize("position", [(0, 0, 0), (7, 33, 31), (-1, -1, 4)])
def test_flipping_a_bit_of_qweight_changes_one_weight(
    directory: Path, position: tuple[int, int, int], tmp_path: Path
) -> None:
    layer = "model.layers.0.mlp.down_proj"
    word, column, bit = position
    tensors = files.tensors_of(directory, layer)
    tensors["qweight"][word, column] ^= torch.tensor(1 << bit).to(torch.int32)
    config = files.quantization_config(directory)
    flipped = files.write_checkpoint(tmp_path, {layer: tensors}, config)

    before, after = (padmarlin.dequantize(load_weight(d, layer)) for d in (directory, flipped))
    per_word = 32 // config["bits"]
    row = word % tensors["qweight"].shape[0] * per_word + bit // config["bits"]
    assert (before != after).nonzero().tolist() == [[row, column % before.shape[1]]]
    for ranks in shards("k", before.shape[0]):
        parts = [padmarlin.dequantize(load_weight(flipped, layer, shard=s)) for s in ranks]
        assert torch.equal(torch.cat(parts), after), ranks


# (k, n, bits, group_size, act_order, axis, tp): ranks that begin inside a word of qweight (1032 / 2
# = 516 rows, / 8 = 129) or of qzeros (1000 / 8 = 125 columns), inside a group, or both.
CUTS = [
    (1032, 40, 4, 128, False, "k", 2),
    (1032, 40, 4, 128, False, "k", 8),
    (1032, 40, 4, 128, True, "k", 4),
    (1032, 40, 8, 64, False, "k", 8),
    (1032, 7, 8, 64, True, "k", 8),
    (1032, 33, 4, 24, False, "k", 8),
    (1032, 33, 4, 100, True, "k", 8),
    (1030, 1, 4, -1, False, "k", 5),
    (464, 24, 4, 128, False, "k", 4),
    (150, 1000, 4, 32, False, "n", 8),
    (150, 1000, 8, 32, True, "n", 8),
    (150, 3420, 4, 24, False, "n", 4),
    (150, 7, 4, 32, False, "n", 7),
]


@pytest.mark.parametrize("version", ["gptq", "gptq_v2"])
@pytest.mark.parametrize(("k", "n", "bits", "group_size", "act_order", "axis", "tp"), CUTS)
def test_part_read_from_disk_equals_part_of_the_whole(
    k: int,
    n: int,
    bits: int,
    group_size: int,
    act_order: bool,
    axis: str,
    tp: int,
    version: str,
    tmp_path: Path,
) -> None:
    layer = files.random_layer(k, n, bits=bits, group_size=group_size, act_order=act_order, seed=7)
    config = files.gptq_config(bits, group_size, desc_act=act_order, checkpoint_format=version)
    directory = files.write_checkpoint(tmp_path, {"layer": layer}, config)
    settings = {"bits": bits, "group_size": group_size, "checkpoint_format": version}
    assert_same_weight(load_weight(directory, "layer"), padmarlin.repack_gptq(**layer, **settings))
    for rank in range(tp):
        shard = Shard(axis, rank, tp)
        expected = padmarlin.repack_gptq(**layer, **settings, shard=shard)
        assert_same_weight(load_weight(directory, "layer", shard=shard), expected)


class CountingFile:
    """A safetensors file that counts the bytes of what is read from it."""

    bytes_read = 0

    def __init__(self, file: Path, framework: str) -> None:
        self._file = safe_open(file, framework=framework)

    def __enter__(self) -> CountingFile:
        self._file.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.__exit__(*exception)

    def keys(self) -> list[str]:
        return self._file.keys()

    def get_slice(self, name: str) -> CountingSlice:
        return CountingSlice(self._file.get_slice(name))


class CountingSlice:
    def __init__(self, view) -> None:  # type: ignore[no-untyped-def]
        self._view = view
        self.get_shape, self.get_dtype = view.get_shape, view.get_dtype

    def __getitem__(self, ranges: tuple[slice, ...]) -> Tensor:
        part = self._view[ranges]
        CountingFile.bytes_read += part.nbytes
        return part


def test_only_the_ranks_part_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    k, n, tp = 2064, 512, 4  # 516 rows, 64.5 words and 4.03 groups of 128 per rank at TP=4
    layers = {
        "plain": files.random_layer(k, n, bits=4, group_size=128, seed=1),
        "act_order": files.random_layer(k, n, bits=4, group_size=128, act_order=True, seed=2),
    }
    directory = files.write_checkpoint(tmp_path, layers, files.gptq_config())
    monkeypatch.setattr(tensors_module, "safe_open", CountingFile)

    def bytes_read(layer: str, shard: Shard) -> int:
        CountingFile.bytes_read = 0
        load_weight(directory, layer, shard=shard)
        return CountingFile.bytes_read

    for rank in range(tp):
        start, stop = rank * 516, (rank + 1) * 516
        word_rows = math.ceil(stop / 8) - start // 8
        codes = word_rows * n * 4
        g_idx = k * 4  # whole
        groups = (stop - 1) // 128 + 1 - start // 8 * 8 // 128
        group_bytes = n * 2 + n // 8 * 4
        assert bytes_read("plain", Shard("k", rank, tp)) == codes + g_idx + groups * group_bytes
        # With act-order a rank's rows may be of any group.
        assert bytes_read("act_order", Shard("k", rank, tp)) == codes + g_idx + 17 * group_bytes
        whole = k // 8 * n * 4 + 17 * group_bytes
        assert bytes_read("plain", Shard("n", rank, tp)) == whole // tp + k * 4


def test_shards_of_several_files_and_other_file_names(tmp_path: Path) -> None:
    source, layer = files.GPTQ[0], "model.layers.0.mlp.down_proj"
    expected = load_weight(source, layer)
    tensors = {f"{layer}.{name}": t for name, t in files.tensors_of(source, layer).items()}
    config = source / "config.json"

    indexed = tmp_path / "indexed"
    indexed.mkdir()
    shutil.copy(config, indexed)
    weight_map = {}
    for i, (name, tensor) in enumerate(tensors.items()):
        weight_map[name] = f"model-{i + 1:05}-of-00004.safetensors"
        save_file({name: tensor}, indexed / weight_map[name])
    (indexed / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert_same_weight(load_weight(indexed, layer), expected)

    unindexed = tmp_path / "unindexed"
    unindexed.mkdir()
    shutil.copy(config, unindexed)
    save_file(tensors, unindexed / "gptq_model-4bit-128g.safetensors")
    save_file({"other.weight": torch.zeros(1)}, unindexed / "other.safetensors")
    assert_same_weight(load_weight(str(unindexed), layer), expected)

    # AutoGPTQ's settings, without quant_method and checkpoint_format, and hubs' symbolic links.
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "model.safetensors").symlink_to(source / "model.safetensors")
    (linked / "config.json").write_text("{}")
    (linked / "quantize_config.json").write_text('{"bits": 4, "group_size": 128, "sym": true}')
    assert_same_weight(load_weight(linked, layer), expected)


def test_dynamic_rules_override_the_settings_of_a_layer(tmp_path: Path) -> None:
    layers = {
        "model.layers.0.mlp.up_proj": files.random_layer(96, 64, bits=8, group_size=32, seed=3),
        "model.layers.1.mlp.up_proj": files.random_layer(96, 64, bits=4, group_size=-1, seed=4),
        "lm_head": files.random_layer(96, 64, bits=4, group_size=128, seed=5),
    }
    dynamic = {
        r"-:.*\.self_attn\..*": {},
        r"+:.*\.0\..*_proj": {"bits": 8, "group_size": 32, "checkpoint_format": "gptq_v2"},
        r"model\.layers\.\d+\.mlp": {"group_size": -1},  # the first that matches decides
    }
    config = files.gptq_config(4, 128, dynamic=dynamic, lm_head=True)
    directory = files.write_checkpoint(tmp_path, layers, config)
    settings = [(8, 32, "gptq_v2"), (4, -1, "gptq"), (4, 128, "gptq")]
    for (name, layer), (bits, group_size, version) in zip(layers.items(), settings, strict=True):
        expected = padmarlin.repack_gptq(
            **layer, bits=bits, group_size=group_size, checkpoint_format=version
        )
        assert_same_weight(load_weight(directory, name), expected)


@pytest.mark.parametrize(("k", "group_size"), [(1032, 128), (1025, 25), (1030, 128), (1030, -1)])
def test_k_without_g_idx(k: int, group_size: int, tmp_path: Path) -> None:
    """Whole words, unless the number of groups leaves another: 41 groups of 25 are at most 1025
    rows, and 129 words at least that many."""
    layer = files.random_layer(k, 16, bits=4, group_size=group_size, seed=6)
    del layer["g_idx"]
    config = files.gptq_config(4, group_size, desc_act=False)
    directory = files.write_checkpoint(tmp_path, {"layer": layer}, config)
    expected = 1025 if k == 1025 else 1032
    weight = load_weight(directory, "layer")
    assert weight.k == expected
    assert_same_weight(weight, padmarlin.repack_gptq(**layer, group_size=group_size, k=expected))
