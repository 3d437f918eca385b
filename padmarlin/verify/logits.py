# SPDX-License-Identifier: Apache-2.0
"""Logits of a checkpoint by Transformers, from weights that the independent reader dequantized.

Run as a program of its own (``python -m padmarlin.verify.logits A B``): Transformers prints, takes
memory, and is not always there.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from padmarlin.verify.files import read_json
from padmarlin.verify.independent import Checkpoint, blocks

LARGEST = 1 << 28
"""Parameters of the largest model that is run: 2 GB in float64."""

_TOKENS = 12
_TOLERANCE = 1e-5
"""Of the largest logit. Transformers rounds norms and softmax to float32 on the way; what is padded
changes the order of sums, so that some of those roundings fall the other way."""

_TIMEOUT_S = 900


def compare_logits(a: Path, b: Path) -> tuple[str, str]:
    """(what is wrong, what was or was not compared); one of them is empty."""
    unchecked = "logits were not compared: "
    if importlib.util.find_spec("transformers") is None:
        return "", unchecked + "Transformers is not installed"
    for directory in (a, b):
        if not (directory / "config.json").exists():
            return "", unchecked + f"there is no config.json in {directory}"
        size = _parameters(Checkpoint(directory))
        if size > LARGEST:
            millions = f"{size / 1e6:.0f} million parameters, more than {LARGEST / 1e6:.0f}"
            return "", unchecked + f"the model has {millions}"
    command = [sys.executable, "-m", "padmarlin.verify.logits", str(a), str(b)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return "", unchecked + f"Transformers took longer than {_TIMEOUT_S} s"
    answer = done.stdout.rpartition("logits: ")[2]
    if done.returncode != 0 or not answer:
        said = done.stderr.strip().splitlines() or ["no reason"]
        return "", unchecked + f"Transformers could not run the model ({said[-1][:200]})"
    found = json.loads(answer)
    if found["fault"]:
        return str(found["fault"]), ""
    return "", f"logits agree to {found['difference']:.1e} of the largest ({_TOKENS} tokens)"


def _parameters(checkpoint: Checkpoint) -> int:
    layers = (checkpoint.layer(name) for name in checkpoint.layers)
    others = (checkpoint.files.entry(name).shape for name in checkpoint.others)
    return sum(layer.k * layer.n for layer in layers) + sum(prod(shape) for shape in others)


def _logits(directory: Path) -> Tensor:
    import transformers

    checkpoint = Checkpoint(directory)
    config = read_json(directory / "config.json")
    config.pop("quantization_config", None)
    with tempfile.TemporaryDirectory(prefix="padmarlin-logits-") as scratch:
        dense = Path(scratch)
        (dense / "config.json").write_text(json.dumps(config))
        save_file(dict(_dense(checkpoint)), dense / "model.safetensors", {"format": "pt"})
        model, loaded = transformers.AutoModelForCausalLM.from_pretrained(
            dense, local_files_only=True, output_loading_info=True
        )
    for key in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if loaded.get(key):
            raise ValueError(f"{directory}: {key.replace('_', ' ')}: {sorted(loaded[key])[:3]}")
    model = model.double().eval()
    vocabulary = model.config.get_text_config().vocab_size
    tokens = torch.arange(1, _TOKENS + 1)[None] * 7919 % vocabulary  # a prime: they are spread
    with torch.no_grad():
        return model(tokens).logits.double()


def _dense(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    for name in checkpoint.others:
        entry = checkpoint.files.entry(name)
        array = np.array(checkpoint.files.array(name))
        if entry.dtype == "BF16":
            yield name, torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        else:
            yield name, torch.from_numpy(array)
    for name in checkpoint.layers:
        layer = checkpoint.layer(name)
        dtype = torch.bfloat16 if layer.dtype == "BF16" else torch.float16
        weight = torch.empty((layer.n, layer.k), dtype=dtype)
        for columns in blocks(layer.k, layer.n):
            block = layer.block(slice(0, layer.k), columns)
            weight[columns] = torch.from_numpy(block.T.astype(np.float32)).to(dtype)
        yield f"{name}.weight", weight


def main() -> None:
    a, b = (_logits(Path(argument)) for argument in sys.argv[1:3])
    fault, difference = "", 0.0
    if a.shape != b.shape:
        fault = f"logits are {tuple(b.shape)}, were {tuple(a.shape)}"
    else:
        difference = float((a - b).abs().max() / a.abs().max())
        if not difference <= _TOLERANCE:
            fault = f"logits differ by {difference:.1e} of the largest, at most {_TOLERANCE:g}"
    print("logits: " + json.dumps({"fault": fault, "difference": difference}))


if __name__ == "__main__":
    main()
