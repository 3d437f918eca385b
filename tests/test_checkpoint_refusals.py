# SPDX-License-Identifier: Apache-2.0
"""``load_weight`` and bad input: whatever the files hold, a ValueError or TypeError says what is
wrong. Seeds: 0 for the damaged bits."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from padmarlin import PaddedWeight, Shard, load_weight
from tests import checkpoint_files as files

LAYER = "model.layers.0.mlp.down_proj"
SOURCE = files.GPTQ[0]  # 4 bits, group size 128, (384, 256)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A copy to be damaged."""
    copy = tmp_path / "checkpoint"
    copy.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(SOURCE / name, copy)
    return copy


def refused(directory: Path, *said: str, name: str = LAYER, **arguments: Any) -> str:
    with pytest.raises(ValueError, match="expected") as caught:
        load_weight(directory, name, **arguments)
    message = str(caught.value)
    for part in said:
        assert part in message, f"{part!r} is not in {message!r}"
    return message


def loaded_or_refused(directory: Path, shard: Shard | None = None) -> PaddedWeight | None:
    """None if refused in our words; any other exception passes through."""
    try:
        return load_weight(directory, LAYER, shard=shard)
    except ValueError as error:
        if not re.match(r"\w[\w.]*: .*: got .*, expected ", str(error)):
            raise
        return None


# ---- arguments


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("checkpoint_dir", 3),
        ("checkpoint_dir", None),
        ("name", None),
        ("shard", ("k", 0, 2)),
        ("dtype", "float16"),
    ],
)
def test_arguments_of_the_wrong_type(argument: str, value: Any) -> None:
    arguments = {"checkpoint_dir": SOURCE, "name": LAYER, argument: value}
    with pytest.raises(TypeError, match=f"load_weight: {argument}: got .*, expected"):
        load_weight(**arguments)


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(TypeError, match=r"dtype: got torch\.float32, expected torch\.float16"):
        load_weight(SOURCE, LAYER, dtype=torch.float32)


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:99", 1.5])
def test_devices_that_are_not_there(device: Any) -> None:
    refused(SOURCE, "load_weight: device: got", device=device)


@pytest.mark.parametrize("path", ["nothing/here", "Qwen/Qwen2-72B-Instruct-GPTQ-Int4", "a\0b"])
def test_directories_that_are_not_there(path: str) -> None:
    refused(Path(path), "checkpoint_dir", "an existing directory", "not the name of a model")


def test_a_file_is_not_a_directory() -> None:
    refused(SOURCE / "model.safetensors", "checkpoint_dir", "an existing directory")


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("model.layers.0.mlp.down_prj", LAYER),
        ("model.layers.7.mlp.down_proj", LAYER),
        ("down_proj", LAYER),
        ("0.self_attn.q_proj", "model.layers.0.self_attn.q_proj"),
        (f"{LAYER}.qweight", LAYER),
        ("model.layers.0.mlp", ""),
        ("", ""),
    ],
)
def test_layers_that_do_not_exist(name: str, close: str) -> None:
    message = refused(SOURCE, f"name: got {name!r}, expected one of the 11 layers", name=name)
    assert not close or f"close matches: {close}" in message


def test_layers_that_are_not_quantized(directory: Path) -> None:
    refused(SOURCE, "which is not quantized", "model.norm.weight", name="model.norm")
    change_settings(directory, dynamic={r"-:.*\.mlp\.": {}})
    refused(directory, "which is not quantized", r"-:.*\\.mlp\\.", "excludes it")


@pytest.mark.parametrize("axis", ["k", "n"])
def test_sizes_that_the_ranks_do_not_divide(axis: str) -> None:
    refused(SOURCE, "multiple of world_size = 7", "choose", shard=Shard(axis, 0, 7))


# ---- settings


def change_settings(directory: Path, **changes: Any) -> None:
    """None removes a key."""
    config = {**files.quantization_config(directory), **changes}
    config = {key: value for key, value in config.items() if value is not None}
    (directory / "config.json").write_text(json.dumps({"quantization_config": config}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bits": None}, "'bits' in config.json: got nothing"),
        ({"bits": 3}, "'bits' in config.json: got 3, expected 4 or 8"),
        ({"bits": "4"}, "got '4', expected an integer"),
        ({"bits": True}, "got True, expected an integer"),
        ({"bits": 8}, "(ceil(k * bits / 32), n) at k = 384"),
        ({"group_size": None}, "'group_size' in config.json: got nothing"),
        ({"group_size": 0}, "got 0, expected 1 to 2147483647, or -1"),
        ({"group_size": -128}, "got -128"),
        ({"group_size": 128.0}, "got 128.0"),
        ({"group_size": 64}, "(6, 256) = (groups, n) at k = 384, group_size = 64"),
        ({"group_size": 2**31}, "got 2147483648, expected 1 to"),
        ({"sym": "yes"}, "'sym' in config.json: got 'yes', expected true or false"),
        ({"desc_act": 1}, "'desc_act' in config.json"),
        ({"checkpoint_format": "marlin"}, "'checkpoint_format' in config.json: got 'marlin'"),
        ({"checkpoint_format": None, "format": "bitblas"}, "'format' in config.json: got 'bitbl"),
        ({"checkpoint_format": 2}, "got 2, expected a string"),
        ({"checkpoint_format": "gptq_v2"}, "as sym=True"),
        ({"pack_dtype": "int64"}, "got 'int64', expected 'int32'"),
        ({"quant_method": "awq"}, "got 'gptq', expected 'gemm'"),
        ({"quant_method": "compressed-tensors"}, "'config_groups' in config.json: got nothing"),
        (
            {"quant_method": "fp8"},
            "got 'fp8', expected 'gptq' or 'awq' or 'compressed-tensors'; requantize with one",
        ),
        ({"quant_method": ["gptq"]}, "got ['gptq'], expected a string"),
        ({"quant_method": None, "method": "qqq"}, "'method' in config.json: got 'qqq'"),
        ({"dynamic": ["down_proj"]}, "'dynamic' in config.json"),
        ({"dynamic": {"(": {}}}, "expected regular expressions"),
        ({"dynamic": {"a{999999999999}": {}}}, "expected regular expressions"),
        ({"dynamic": {"(.*)*x": {}}}, "'(.*)*x': no match and no end of it within"),
        ({"dynamic": ["x" * 10**6]}, "... (1000004 characters), expected an object"),
        (
            {"dynamic": {"+:.*down": 8}},
            "'+:.*down' in 'dynamic' of config.json: got 8, expected an",
        ),
        (
            {"dynamic": {"a": {}, "+:.*o": 8}},
            "'+:.*o' in 'dynamic' of config.json: got 8, expected an",
        ),
        (
            {"dynamic": {"+:.*down": {"bits": 5}}},
            "with its rule '+:.*down': got 5, expected 4 or 8",
        ),
    ],
    ids=str,
)
def test_settings(directory: Path, changes: dict[str, Any], said: str) -> None:
    change_settings(directory, **changes)
    refused(directory, said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "config.json: got JSONDecodeError"),
        (b'{"quantization_config": {"bits": 4,', "config.json: got JSONDecodeError"),
        (b"\xff\xfe\x00\x01garbage", "config.json: got Unicode"),
        (b"[" * 100_000, "config.json: got RecursionError"),
        (b"[]", "JSON of type list"),
        (b'{"quantization_config": 7}', "'quantization_config' in config.json: got 7"),
        (b"{}", "a config.json without quantization_config"),
        (None, "no config.json"),
    ],
)
def test_config_that_is_no_config(directory: Path, text: bytes | None, said: str) -> None:
    config = directory / "config.json"
    config.unlink() if text is None else config.write_bytes(text)
    refused(directory, said)


def test_config_that_is_a_directory_or_a_dead_link(directory: Path) -> None:
    config = directory / "config.json"
    config.unlink()
    config.symlink_to("nowhere")
    refused(directory, "config.json: got FileNotFoundError")
    config.unlink()
    config.mkdir()
    refused(directory, "config.json: got IsADirectoryError")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_pipes_and_devices_are_no_files(directory: Path, file: str) -> None:
    """They would be waited for, or read, for ever."""
    (directory / file).unlink()
    os.mkfifo(directory / file)
    refused(directory, f"{file}: got ", "expected a regular file")
    (directory / file).unlink()
    (directory / file).symlink_to("/dev/zero")
    refused(directory, f"{file}: got ", "expected a regular file")


# ---- tensors

Change = Callable[[dict[str, Tensor]], Any]


def _set(name: str, change: Callable[[Tensor], Tensor]) -> Change:
    return lambda tensors: tensors.__setitem__(name, change(tensors[name]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("qweight"), f"no tensor '{LAYER}.qweight'"),
        (lambda t: t.pop("scales"), f"no tensor '{LAYER}.scales'"),
        (lambda t: t.pop("qzeros"), f"no tensor '{LAYER}.qzeros'"),
        (_set("qweight", lambda t: t.long()), "I64 (48, 256), expected I32 (any, any)"),
        (_set("qweight", lambda t: t[None]), "I32 (1, 48, 256)"),
        (_set("qweight", lambda t: t[:0]), "I32 (0, 256), expected I32 (any, any)"),
        (_set("qweight", lambda t: t[:47]), "I32 (47, 256), expected I32 (48, 256)"),
        (_set("qweight", lambda t: t[:, :255]), "(any, 255) = (groups, n)"),
        (_set("scales", lambda t: t.double()), "F64 (3, 256), expected F16 or BF16 or F32"),
        (_set("scales", lambda t: t[:2]), "(2, 256), expected F16 or BF16 or F32 (3, 256)"),
        (_set("scales", lambda t: t * float("nan")), "nan at group 0"),
        (_set("scales", lambda t: t * float("inf")), "inf at group 0"),
        (_set("qzeros", lambda t: t.short()), "I16 (3, 32), expected I32 (3, 32)"),
        (_set("qzeros", lambda t: t[:, :31]), "I32 (3, 31), expected I32 (3, 32)"),
        (_set("qzeros", lambda t: t ^ 1), "expected 8 everywhere, as sym=True"),
        (_set("g_idx", lambda t: t.float()), "F32 (384,), expected I32 or I64 (any)"),
        (_set("g_idx", lambda t: t[:-8]), "I32 (48, 256), expected I32 (47, 256)"),
        (_set("g_idx", lambda t: t - 1), "-1 at row 0, expected 0 to 2"),
        (_set("g_idx", lambda t: t + 1), "3 at row 256, expected 0 to 2"),
        (_set("g_idx", lambda t: t[:0]), "I32 (0,), expected I32 or I64 (any)"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, change: Change, said: str) -> None:
    tensors = files.tensors_of(SOURCE, LAYER)
    change(tensors)
    config = files.quantization_config(SOURCE)
    directory = files.write_checkpoint(tmp_path, {LAYER: tensors}, config)
    refused(directory, said, LAYER)
    refused(directory, LAYER, shard=Shard("k", 1, 2))
    refused(directory, LAYER, shard=Shard("n", 1, 2))


def test_act_order_needs_g_idx(tmp_path: Path) -> None:
    tensors = files.tensors_of(SOURCE, LAYER)
    del tensors["g_idx"]
    config = files.gptq_config(desc_act=True)
    directory = files.write_checkpoint(tmp_path, {LAYER: tensors}, config)
    refused(directory, f"no tensor '{LAYER}.g_idx'")


def test_scales_that_the_dtype_cannot_hold(tmp_path: Path) -> None:
    tensors = files.tensors_of(SOURCE, LAYER)
    tensors["scales"] = tensors["scales"].float()
    tensors["scales"][1, 3] = 1e6
    config = files.quantization_config(SOURCE)
    directory = files.write_checkpoint(tmp_path, {LAYER: tensors}, config)
    refused(directory, "1e+06 at group 1, column 3", "pass dtype=torch.bfloat16")
    refused(directory, "world_size=2) of layer", shard=Shard("k", 0, 2))
    assert load_weight(directory, LAYER, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_k_that_nothing_tells(tmp_path: Path) -> None:
    """1028 rows: 129 words would hold 1032, one group of 4 more; 1025 to 1028 have as many."""
    layer = files.random_layer(1028, 8, bits=4, group_size=4, seed=1)
    del layer["g_idx"]
    directory = files.write_checkpoint(tmp_path, {LAYER: layer}, files.gptq_config(4, 4))
    refused(directory, "257 groups of 4 for 129 words", "1025 to 1028 fit", "with k=...")


# ---- files


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 1000, 3584, -1])
def test_truncated_file(directory: Path, size: int) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    refused(directory, "model.safetensors: got", "truncated or damaged")


@pytest.mark.parametrize("length", [0, 2, 2**31, 2**40, 2**63, 2**64 - 1])
def test_header_sizes_that_lie(directory: Path, length: int) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(length.to_bytes(8, "little") + file.read_bytes()[8:])
    refused(directory, "model.safetensors: got", "truncated or damaged")


def test_flipped_bits_in_the_header_load_or_are_refused(directory: Path) -> None:
    file = directory / "model.safetensors"
    original = file.read_bytes()
    header_end = 8 + int.from_bytes(original[:8], "little")
    place = original.index(LAYER.encode())
    generator = random.Random(0)
    refusals = 0
    for i in range(200):
        # Half of them in this layer's own entries.
        first, last = (place, place + 500) if i % 2 else (0, header_end)
        damaged = bytearray(original)
        damaged[generator.randrange(first, last)] ^= 1 << generator.randrange(8)
        file.write_bytes(damaged)
        weight = loaded_or_refused(directory)
        refusals += weight is None
        assert weight is None or (weight.k, weight.n) == (384, 256)
    assert refusals > 60


def test_flipped_bits_in_the_data_load_or_are_refused(directory: Path) -> None:
    file = directory / "model.safetensors"
    original = file.read_bytes()
    header_end = 8 + int.from_bytes(original[:8], "little")
    header = json.loads(original[8:header_end])
    generator = random.Random(0)
    for i in range(100):
        suffix = ("g_idx", "scales", "qzeros", "qweight")[i % 4]
        start, stop = header[f"{LAYER}.{suffix}"]["data_offsets"]
        damaged = bytearray(original)
        damaged[header_end + generator.randrange(start, stop)] ^= 1 << generator.randrange(8)
        file.write_bytes(damaged)
        for shard in (None, Shard("k", 1, 2)):
            loaded_or_refused(directory, shard)


@pytest.mark.parametrize(
    "target",
    [
        "../secret.safetensors",
        "../../x",
        "/etc/passwd",
        "sub/model.safetensors",
        "..",
        "",
        "model.bin",
        "a\0.safetensors",
        "sub\\model.safetensors",
        7,
        None,
    ],
)
def test_index_that_leads_elsewhere(directory: Path, target: Any) -> None:
    shutil.move(directory / "model.safetensors", directory.parent / "secret.safetensors")
    write_index(directory, {"weight_map": {f"{LAYER}.qweight": target}})
    refused(directory, "'weight_map'", repr(target), "in the same directory")


def write_index(directory: Path, index: Any) -> None:
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": {}}, []])
def test_index_that_is_no_index(directory: Path, index: Any) -> None:
    (directory / "model.safetensors").unlink()
    write_index(directory, index)
    refused(directory, "model.safetensors.index.json")


def test_names_that_are_not_unicode(directory: Path) -> None:
    """JSON can hold half of a surrogate pair; no file system and no safetensors file can."""
    (directory / "model.safetensors").rename(directory / "a.safetensors")
    write_index(directory, {"weight_map": {f"{LAYER}.qweight": "\ud800.safetensors"}})
    refused(directory, "surrogates not allowed")
    write_index(directory, {"weight_map": {"\ud800.qweight": "a.safetensors"}})
    refused(directory, "surrogates not allowed", name="\ud800")


def test_index_that_names_what_is_not_there(directory: Path) -> None:
    suffixes = ("qweight", "qzeros", "scales", "g_idx")
    (directory / "model.safetensors").rename(directory / "a.safetensors")
    write_index(directory, {"weight_map": {f"{LAYER}.{s}": "b.safetensors" for s in suffixes}})
    refused(directory, "b.safetensors: got No such file", "missing")
    save_file({"x": torch.zeros(1)}, directory / "b.safetensors")
    refused(directory, "b.safetensors: got", f"{LAYER}.qweight")


def test_directories_without_or_with_too_many_tensors(directory: Path) -> None:
    file = directory / "model.safetensors"
    shutil.copy(file, directory / "first.safetensors")
    file.rename(directory / "second.safetensors")
    refused(directory, "in both first.safetensors and second.safetensors")
    for copy in directory.glob("*.safetensors"):
        copy.unlink()
    (directory / "pytorch_model.bin").write_bytes(b"\x80")
    refused(directory, "no tensors in", "model.safetensors or other")
