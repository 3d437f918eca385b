# SPDX-License-Identifier: Apache-2.0
"""``tradeoff`` against an independent rounding in numpy, padmarlin.plan and limits by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from padmarlin.partition import build_row_map
from padmarlin.plan import plan
from padmarlin.tradeoff import GPUS, limit_us, to_markdown, tradeoff, weights
from tests.checkpoint_files import GPTQ
from tests.models.configs import CONFIGS, QWEN2_72B, decoder, write

TINY = decoder("qwen2", 128, 208, 2, 4, 2)
DOWN = "model.layers.{0..1}.mlp.down_proj"
SHAPES = {
    "self_attn.q_proj": (128, 128),
    "self_attn.k_proj": (64, 128),
    "self_attn.v_proj": (64, 128),
    "self_attn.o_proj": (128, 128),
    "mlp.gate_proj": (208, 128),
    "mlp.up_proj": (208, 128),
    "mlp.down_proj": (128, 208),
}


def checkpoint(folder: Path, dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    """A plain Qwen2 of two layers, with some rows much larger than others; seed 7."""
    generator = torch.Generator().manual_seed(7)
    tensors = {}
    for layer in range(2):
        for name, shape in SHAPES.items():
            sizes = torch.rand(shape[0], 1, generator=generator) ** 3
            weight = torch.randn(shape, generator=generator) * sizes * 0.05
            tensors[f"model.layers.{layer}.{name}.weight"] = weight.to(dtype)
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(TINY))
    names = sorted(tensors)
    save_file({name: tensors[name] for name in names[::2]}, folder / "model-1.safetensors")
    save_file({name: tensors[name] for name in names[1::2]}, folder / "model-2.safetensors")
    return tensors


def rounded(weight: np.ndarray, bits: int, group_size: int) -> np.ndarray:
    """(n, k) weights after rounding, group by group, in float64."""
    result = np.zeros_like(weight)
    size = weight.shape[1] if group_size == -1 else group_size
    for row in range(weight.shape[0]):
        for start in range(0, weight.shape[1], size):
            group = weight[row, start : start + size]
            scale = 2 * np.abs(group).max() / (2**bits - 1)
            if scale:
                codes = np.clip(np.rint(group / scale), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
                result[row, start : start + size] = codes * scale
    return result


def relative(weights: list[np.ndarray], bits: int, group_size: int) -> float:
    error = sum(((w - rounded(w, bits, group_size)) ** 2).sum() for w in weights)
    return float(np.sqrt(error / sum((w**2).sum() for w in weights)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_errors_are_those_of_numpy(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = checkpoint(tmp_path, dtype)
    table = tradeoff(tmp_path, tp=1, group_sizes=(16, 48, 128, -1))
    assert table.sample.source == "checkpoint" and table.sample.complete
    fused = {
        "qkv": ("q_proj", "k_proj", "v_proj"),
        "o": ("o_proj",),
        "gate_up": ("gate_proj", "up_proj"),
        "down": ("down_proj",),
    }
    for entry in table.entries:
        stored = [
            tensor.double().numpy()
            for name, tensor in tensors.items()
            if name.split(".")[-2] in fused[entry.layer.role]
        ]
        expected = relative(stored, entry.choice.bits, entry.choice.group_size)
        assert entry.error == pytest.approx(expected, rel=1e-3), (entry.layer.role, entry.choice)
    everything = [tensor.double().numpy() for tensor in tensors.values()]
    for total in table.totals:
        expected = relative(everything, total.choice.bits, total.choice.group_size)
        assert total.error == pytest.approx(expected, rel=1e-3), total.choice


def test_scales_in_fp16_hardly_change_the_error() -> None:
    """What rounding.py says; seed 1."""
    weight = np.random.default_rng(1).normal(size=(8, 1024)) * 0.02
    for bits in (4, 8):
        exact, half = weight - rounded(weight, bits, 128), np.empty_like(weight)
        for start in range(0, 1024, 128):
            group = weight[:, start : start + 128]
            scale = np.abs(group).max(axis=1, keepdims=True) * 2 / (2**bits - 1)
            scale = scale.astype(np.float16).astype(np.float64)
            codes = np.clip(np.rint(group / scale), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
            half[:, start : start + 128] = group - codes * scale
        assert np.linalg.norm(half) == pytest.approx(np.linalg.norm(exact), rel=0.01), bits


def test_a_sample_stands_for_the_whole(tmp_path: Path) -> None:
    tensors = checkpoint(tmp_path)
    table = tradeoff(tmp_path, tp=1, bits=(4,), group_sizes=(32,), rows=40)
    assert not table.sample.complete and "a sample: 40 output rows" in str(table.sample)
    expected = relative([t.double().numpy() for t in tensors.values()], 4, 32)
    assert table.totals[0].error == pytest.approx(expected, rel=0.2)
    again = tradeoff(tmp_path, tp=1, bits=(4,), group_sizes=(32,), rows=40)
    assert again.to_json() == table.to_json()


def test_pieces_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices that are read in several pieces: 7 rows of 128, 4 of 208."""
    checkpoint(tmp_path)
    expected = tradeoff(tmp_path, tp=1)
    monkeypatch.setattr(weights, "_PIECE", 1000)
    found = tradeoff(tmp_path, tp=1)
    for one, other in zip(found.entries, expected.entries, strict=True):
        assert one.error == pytest.approx(other.error, rel=1e-9), (one.layer.role, one.choice)


def test_weights_of_zero_have_no_error(tmp_path: Path) -> None:
    tensors = checkpoint(tmp_path)
    save_file(
        {n: torch.zeros_like(t) for n, t in tensors.items()}, tmp_path / "model-1.safetensors"
    )
    (tmp_path / "model-2.safetensors").unlink()
    assert all(entry.error == 0.0 for entry in tradeoff(tmp_path, tp=1).entries)


@pytest.mark.parametrize("tp", [1, 2, 4, 8])
def test_bytes_are_those_of_the_plan(tp: int, tmp_path: Path) -> None:
    table = tradeoff(write(tmp_path, QWEN2_72B), tp=tp, group_sizes=(32, 100, 128, -1), rows=1)
    for entry in table.entries:
        layer, choice = entry.layer, entry.choice
        cut_k = layer.axis == "k"
        planned = plan(
            layer.k,
            layer.n if cut_k else layer.n // tp,
            bits=choice.bits,
            group_size=choice.group_size,
            tp=tp if cut_k else 1,
        )
        sizes = []
        for rank in planned.ranks:
            rows = build_row_map(rank.k, choice.group_size, k_start=rank.k_start)
            assert rows.padded_k == rank.padded_k
            codes = rank.padded_k * rank.padded_n * choice.bits // 8
            sizes.append(codes + len(rows.groups) * rank.padded_n * 2)
        assert entry.rank_bytes == max(sizes), (layer.role, choice)
        assert entry.padding == planned.overhead
    for total in table.totals:
        own = [entry for entry in table.entries if entry.choice == total.choice]
        assert total.rank_bytes == 80 * sum(entry.rank_bytes for entry in own)


def test_straddles_of_qwen2_72b(tmp_path: Path) -> None:
    """14784 rows per rank are 115.5 groups of 128, 231 of 64, 462 of 32."""
    table = tradeoff(write(tmp_path, QWEN2_72B), tp=2, bits=(4,), rows=1)
    straddling = {
        entry.choice.group_size: entry.straddles
        for entry in table.entries
        if entry.layer.role == "down"
    }
    assert straddling == {128: True, 64: False, 32: False}
    assert not any(entry.straddles for entry in table.entries if entry.layer.role != "down")
    assert [choice.group_size for choice in table.straddle_free] == [32, 64]
    assert table.conclusion() == (
        "no straddle at TP 2 with: 4 bits, groups of 32; 4 bits, groups of 64"
    )
    alone = tradeoff(write(tmp_path, QWEN2_72B), tp=2, bits=(4,), group_sizes=(128,), rows=1)
    assert alone.conclusion().startswith("every choice straddles at TP 2")
    single = tradeoff(write(tmp_path, QWEN2_72B), tp=1, bits=(4,), rows=1)
    assert single.conclusion() == "no choice straddles at TP 1"


@pytest.mark.parametrize(
    ("bits", "k", "n", "expected"),
    # By hand, H200: k n (bits / 8 + 2 / 128) bytes, + 2 m (k + n), at 4.3 TB/s; 2 m n k at 790e12.
    [
        (4, 8192, 8192, (8.1, 8.2, 43.5)),
        (4, 8192, 10240, (10.1, 10.2, 54.4)),
        (4, 14784, 8192, (14.5, 14.7, 78.5)),
        (8, 8192, 59136, (114.5, 114.9, 314.0)),
        (8, 3696, 8192, (7.2, 7.2, 19.6)),
    ],
)
def test_limits_by_hand(bits: int, k: int, n: int, expected: tuple[float, ...]) -> None:
    size = round(k * n * (bits / 8 + 2 / 128))
    found = tuple(round(limit_us(GPUS["h200"], m, k, n, size), 1) for m in (1, 16, 256))
    assert found == expected


def test_limits_of_a_table(tmp_path: Path) -> None:
    table = tradeoff(write(tmp_path, QWEN2_72B), tp=1, bits=(4,), group_sizes=(128,), rows=1)
    found = {
        e.layer.role: tuple(round(time, 1) for time in e.limits_us.values()) for e in table.entries
    }
    assert found == {
        "qkv": (10.1, 10.2, 54.4),
        "o": (8.1, 8.2, 43.5),
        "gate_up": (58.1, 58.6, 314.0),
        "down": (29.1, 29.3, 157.0),
    }


def test_a_random_model_says_so(tmp_path: Path) -> None:
    table = tradeoff(write(tmp_path, QWEN2_72B), tp=2, bits=(4,))
    assert str(table.sample) == (
        "a random model, no real weights: normal, seed 0, 64 output rows of each layer"
    )
    errors = {e.choice.group_size: e.error for e in table.entries if e.layer.role == "o"}
    assert errors[32] < errors[64] < errors[128]
    # Groups of 128 normal weights have a maximum of 2.8 sigma on average, so steps of 0.37 sigma,
    # and uniform errors of a step / sqrt(12) = 0.108.
    assert errors[128] == pytest.approx(0.108, rel=0.05)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_known_architecture(name: str, tmp_path: Path) -> None:
    table = tradeoff(write(tmp_path, CONFIGS[name]), tp=2, bits=(4,), group_sizes=(128,), rows=1)
    assert table.entries and json.loads(json.dumps(table.to_json()))["tp"] == 2
    assert to_markdown(table).count("\n| `") == len(table.entries)


def test_a_layer_that_cannot_be_cut(tmp_path: Path) -> None:
    table = tradeoff(write(tmp_path, CONFIGS["qwen2.5-0.5b"]), tp=4, bits=(4,), rows=1)
    values = {layer["role"]: layer for layer in table.to_json()["layers"]}
    assert values["o"]["rank"] == {"k": 0, "n": 0} and "14 heads" in values["o"]["problem"]
    assert values["o"]["choices"][0]["limit_us"] == {}
    assert any("o_proj is not counted in bytes" in note for note in table.notes)
    assert "| impossible |" in to_markdown(table)


def test_bad_arguments(tmp_path: Path) -> None:
    path = write(tmp_path, QWEN2_72B)
    for arguments, message in (
        ({"tp": 0}, "tradeoff: tp: got 0"),
        ({"tp": 2048}, "tradeoff: tp: got 2048"),
        ({"tp": 1, "bits": (3,)}, "tradeoff: bits: got 3"),
        ({"tp": 1, "bits": ()}, "tradeoff: bits: got \\(\\)"),
        ({"tp": 1, "group_sizes": (0,)}, "tradeoff: group_size: got 0"),
        ({"tp": 1, "group_sizes": 64}, "tradeoff: group_sizes: got 64"),
        ({"tp": 1, "gpu": "b200"}, "tradeoff: gpu: got 'b200'"),
        ({"tp": 1, "rows": -1}, "tradeoff: rows: got -1"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            tradeoff(path, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="^tradeoff: path: got 'nowhere'"):
        tradeoff("nowhere", tp=1)


def test_bad_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="which is quantized already"):
        tradeoff(GPTQ[0], tp=1)
    name = "model.layers.1.mlp.down_proj.weight"
    tensors = checkpoint(tmp_path / "source")
    for change, message in (
        (None, f"no tensor '{name}'"),
        (tensors[name][:, :207].contiguous(), "got BF16 \\(128, 207\\)"),
        (tensors[name].to(torch.float8_e4m3fn), "got F8_E4M3"),
        (tensors[name].clone().fill_(float("nan")), "got NaN or infinity"),
    ):
        damaged = {n: t for n, t in tensors.items() if n != name}
        if change is not None:
            damaged[name] = change
        folder = tmp_path / "damaged"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(TINY))
        save_file(damaged, folder / "model.safetensors")
        with pytest.raises(ValueError, match=message):
            tradeoff(folder, tp=1)
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-100])
    with pytest.raises(
        ValueError, match=r"^tradeoff: tensor .* in model\.safetensors \(the last\): got"
    ):
        tradeoff(folder, tp=1)
