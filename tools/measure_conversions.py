# SPDX-License-Identifier: Apache-2.0
"""Time and peak memory of pad, unpad and repack on made-up GPTQ layers of Qwen2-72B:

    python tools/measure_conversions.py FOLDER [LAYERS]

FOLDER gets about 0.46 GB per layer (default 18: 8.2 GB) and three copies of it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

HIDDEN, INTERMEDIATE, KEY_VALUE, GROUP = 8192, 29568, 1024, 128
LAYER = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN, KEY_VALUE),
    "self_attn.v_proj": (HIDDEN, KEY_VALUE),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (HIDDEN, INTERMEDIATE),
    "mlp.up_proj": (HIDDEN, INTERMEDIATE),
    "mlp.down_proj": (INTERMEDIATE, HIDDEN),
}
CONFIG = {
    "model_type": "qwen2",
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 1000,
    "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "sym": True},
}


def gptq(k: int, n: int) -> dict[str, torch.Tensor]:
    """Random symmetric 4-bit codes (v1: zero point 8 is stored as 7)."""
    return {
        "qweight": torch.randint(-(2**31), 2**31 - 1, (k // 8, n), dtype=torch.int32),
        "qzeros": torch.full((k // GROUP, n // 8), 0x77777777, dtype=torch.int32),
        "scales": torch.full((k // GROUP, n), 0.01, dtype=torch.float16),
        "g_idx": (torch.arange(k) // GROUP).to(torch.int32),
    }


def make(folder: Path, layers: int) -> int:
    folder.mkdir(parents=True)
    weight_map, total = {}, 0
    for i in range(layers):
        tensors = {
            f"model.layers.{i}.{name}.{part}": tensor
            for name, (k, n) in LAYER.items()
            for part, tensor in gptq(k, n).items()
        }
        file = f"model-{i + 1:05d}-of-{layers:05d}.safetensors"
        save_file(tensors, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, file)
        total += sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": layers}))
    return total


def measure(*arguments: str) -> None:
    """Runs a verb in a process of its own; a child of this one measures it alone."""
    code = (
        "import resource, subprocess, sys; "
        "done = subprocess.run([sys.executable, '-m', 'padmarlin', *sys.argv[1:]]); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024); "
        "sys.exit(done.returncode)"
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    seconds = time.perf_counter() - start
    peak = int(done.stdout.splitlines()[-1])
    print(f"{arguments[0]:8} {seconds:6.1f} s   peak {peak / 1e9:.2f} GB", flush=True)


def main() -> int:
    if len(sys.argv) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    folder, layers = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) == 3 else 18
    source, padded = str(folder / "source"), str(folder / "padded")
    print(f"{make(Path(source), layers) / 1e9:.2f} GB, {layers} layers", flush=True)
    measure("pad", source, padded, "--tp", "2")
    measure("unpad", padded, str(folder / "restored"))
    measure("repack", source, str(folder / "shards"), "--tp", "2")
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"(making the checkpoint took {own / 1e9:.2f} GB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
