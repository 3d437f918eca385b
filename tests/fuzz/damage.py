# SPDX-License-Identifier: Apache-2.0
"""Ways to damage a checkpoint directory. Each takes a random.Random and the directory, and leaves
it in any state whatever."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file, save_file

TENSORS = "model.safetensors"
CONFIG = "config.json"
INDEX = "model.safetensors.index.json"

_ODD_JSON: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 3, 4, 8, 16, 32, 64, 100, 128, 384),
    *(2**31 - 1, 2**31, 2**63, -(2**63), 2**64, 10**400, 0.5, 4.0, 1e308, math.inf, math.nan),
    *("", "4", "-1", "gptq", "gptq_v2", "awq", "compressed-tensors", "I32", "F16", "BF16", "I64"),
    *("\ud800", "\0", "../x.safetensors", "/etc/passwd", "model.safetensors", "x" * 100_000),
    *([], [[]], [0], [1, 1], [2**62, 4], [384, 256], {}, {"bits": 8}, {"": {}}, {".*": None}),
    *({"-:.*": {}}, {"(.*)*x": {"bits": 8}}, {"(": {}}, {"+:.*proj": {"group_size": 32}}),
]


def odd_json(random: Random) -> Any:
    value = deepcopy(random.choice(_ODD_JSON))
    for _ in range(random.choice([0, 0, 0, 0, 1, 5, 500])):
        value = [value]
    return value


def _entry(random: Random, root: Any) -> tuple[Any, Any]:
    """A container somewhere below `root`, and one of its keys or positions."""
    container, key = None, None
    node = root
    while isinstance(node, (dict, list)) and node:
        container = node
        key = random.choice(list(node) if isinstance(node, dict) else range(len(node)))
        node = node[key]
        if random.random() < 0.1:
            break
    return container, key


def damage_json(random: Random, root: Any) -> None:
    """One to three entries anywhere below `root` are replaced, removed, renamed or exchanged."""
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        container, key = _entry(random, root)
        if container is None:
            return
        other, other_key = _entry(random, root)
        action = random.choice(["replace", "replace", "replace", "remove", "rename", "exchange"])
        if action == "remove":
            del container[key]
        elif action == "rename" and isinstance(container, dict):
            container[random.choice([key + "x", key[:-1], "", "dynamic"])] = container.pop(key)
        elif action == "exchange":
            container[key] = json.loads(json.dumps(other[other_key]))
        else:
            container[key] = odd_json(random)


def damage_bytes(random: Random, data: bytes, most_interesting: int) -> bytes:
    """Bits flipped, bytes cut, moved, zeroed; half of the time among the first so many."""
    damaged = bytearray(data)
    for _ in range(random.choice([1, 1, 1, 2, 8])):
        size = len(damaged)
        place = random.randrange(min(most_interesting, size) if random.random() < 0.5 else size)
        length = random.choice([1, 2, 8, 100, 10_000])
        match random.choice(["flip", "flip", "flip", "cut", "remove", "zero", "repeat", "digit"]):
            case "flip":
                damaged[place] ^= 1 << random.randrange(8)
            case "cut":
                del damaged[place:]
            case "remove":
                del damaged[place : place + length]
            case "zero":
                damaged[place : place + length] = bytes(len(damaged[place : place + length]))
            case "repeat":
                damaged[place:place] = damaged[place : place + length]
            case "digit":
                damaged[place] = random.choice(b"0123456789-[]{},:.e")
        if not damaged:
            break
    return bytes(damaged)


def _header_end(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")


def bytes_of_tensors(random: Random, directory: Path) -> None:
    file = directory / TENSORS
    data = file.read_bytes()
    file.write_bytes(damage_bytes(random, data, _header_end(data)))


def header_size(random: Random, directory: Path) -> None:
    file = directory / TENSORS
    data = file.read_bytes()
    true = _header_end(data) - 8
    near = [true + offset for offset in (-64, -8, -1, 1, 8, 64)]
    far = [0, 1, 2**27, 2**31, 2**40, 2**63, 2**64 - 1, random.getrandbits(64)]
    size = random.choice([*near, *far])
    file.write_bytes(size.to_bytes(8, "little") + data[8:])


_SAME_SIZE = [["I32", "F32", "U32"], ["F16", "BF16", "I16", "U16"], ["I64", "F64", "C64"]]


def mistake_header(random: Random, header: dict[str, Any]) -> None:
    """One tensor gets another shape or dtype of the same size, or another one's name."""
    name, other = random.choices([name for name in header if name != "__metadata__"], k=2)
    entry = header[name]
    match random.choice(["dtype", "shape", "name"]):
        case "dtype":
            kinds = next((kinds for kinds in _SAME_SIZE if entry["dtype"] in kinds), ["F16"])
            entry["dtype"] = random.choice(kinds)
        case "shape":
            size = math.prod(entry["shape"])
            first = random.choice([f for f in (1, 2, 3, 8, 48, 256, size) if size % f == 0])
            entry["shape"] = random.choice([[size], [first, size // first], [1, *entry["shape"]]])
        case "name":
            header[name], header[other] = header[other], header[name]


def header_entries(random: Random, directory: Path) -> None:
    """A header that is well-formed, of the right size, and wrong."""
    file = directory / TENSORS
    data = file.read_bytes()
    end = _header_end(data)
    header = json.loads(data[8:end])
    if random.random() < 0.4:
        damage_json(random, header)
    else:
        for _ in range(random.choice([1, 10, 100])):
            mistake_header(random, header)
    text = json.dumps(header, ensure_ascii=random.random() < 0.9).encode("utf-8", "surrogatepass")
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])


_TENSOR_CHANGES = [
    lambda t: t[:0],
    lambda t: t[:-1],
    lambda t: torch.cat([t, t[:1]]),
    lambda t: t[None],
    lambda t: t.flatten(),
    lambda t: t.flatten()[0],
    lambda t: t[..., :-1],
    lambda t: t.t() if t.dim() == 2 else t.flip(0),
    lambda t: t.float(),
    lambda t: t.double(),
    lambda t: t.half(),
    lambda t: t.bfloat16(),
    lambda t: t.long(),
    lambda t: t.short(),
    lambda t: t.to(torch.complex64),
    lambda t: t.to(torch.float8_e5m2),
    lambda t: t.bool(),
    lambda t: -t,
    lambda t: t + 1,
    lambda t: t.flip(0),
    lambda t: torch.zeros_like(t),
    lambda t: t.float() * math.nan,
    lambda t: t.half() * math.inf,
    lambda t: t.float() * 1e30,
    lambda t: t.float() * 1e-30,
    lambda t: t.roll(7),
]


def tensors(random: Random, directory: Path) -> None:
    """A file that is valid, with one kind of tensor missing, changed, or of another's values."""
    file = directory / TENSORS
    stored = load_file(file)
    suffixes = sorted({name.rpartition(".")[2] for name in stored} - {"weight", "bias"})
    suffix = random.choice(suffixes)
    change = random.choice(_TENSOR_CHANGES)
    for name in [name for name in stored if name.endswith(suffix)]:
        if random.random() < 0.1:
            del stored[name]
        else:
            stored[name] = change(stored[name]).contiguous()
    save_file(stored, file)


def settings(random: Random, directory: Path) -> None:
    file = directory / CONFIG
    config = json.loads(file.read_text())
    damage_json(random, config["quantization_config"] if random.random() < 0.9 else config)
    file.write_text(json.dumps(config))


def bytes_of_config(random: Random, directory: Path) -> None:
    file = directory / CONFIG
    text = file.read_bytes()
    start = text.index(b"quantization_config")
    damaged = damage_bytes(random, text[start:], 600)
    wrapped = [text[:start] + damaged, damaged, b"\xef\xbb\xbf" + text, b"[" * 50_000, b"", b"null"]
    weights = [20, 2, 1, 1, 1, 1]
    file.write_bytes(random.choices(wrapped, weights)[0])


def index(random: Random, directory: Path) -> None:
    """Two files and an index of them; the index or the files damaged."""
    stored = load_file(directory / TENSORS)
    (directory / TENSORS).unlink()
    names = [f"model-{i}.safetensors" for i in range(2)]
    weight_map = {name: names[random.randrange(2)] for name in stored}
    for file in names:
        part = {name: tensor for name, tensor in stored.items() if weight_map[name] == file}
        save_file(part, directory / file)
    content = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    for _ in range(random.choice([1, 1, 20])):
        damage_json(random, content)
    (directory / INDEX).write_text(json.dumps(content))
    if random.random() < 0.2:
        (directory / random.choice([*names, INDEX])).unlink()
