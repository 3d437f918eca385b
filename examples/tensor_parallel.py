# SPDX-License-Identifier: Apache-2.0
"""A real checkpoint's decoder layer on several ranks, held against the same layer on one.

    python examples/tensor_parallel.py --nproc 2 4                starts its ranks itself
    torchrun --nproc-per-node 2 examples/tensor_parallel.py       uses torchrun's ranks
    torchrun -- examples/tensor_parallel.py --nproc 2             torchrun's one rank starts two

(Without the --, torchrun takes --nproc for an abbreviation of options of its own, and refuses it.)

NCCL and a GPU per rank where there are as many GPUs as ranks, else gloo on the CPU. Ends with 1 if
any result differs by more than rounding.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from decoder_layer import DecoderLayer, Sizes, plain_tensor
from rich.console import Console
from rich.table import Table
from torch import Tensor

from padmarlin.nn import QuantLinear

CHECKPOINT = Path(__file__).parent.parent / "tests" / "checkpoints" / "gptq4_g128_sym_i384"

TOLERANCE = 2e-3
"""Relative. Every rank rounds its part to 11 bits, and so does every step of a sum over ranks:
2^-11 = 5e-4 each time. A scale row of a neighbouring group costs a hundred times as much."""


def backend_of(size: int) -> str:
    return "nccl" if torch.cuda.device_count() >= size else "gloo"


def device_of(rank: int, size: int) -> torch.device:
    if backend_of(size) == "nccl":
        torch.cuda.set_device(rank)
        return torch.device("cuda", rank)
    return torch.device("cpu")


def stages(layer: DecoderLayer, x: Tensor, positions: Tensor) -> dict[str, Tensor]:
    """The input of each row-parallel layer is cut; what it returns, and the block's, is whole."""
    found: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(
            lambda _m, _i, out, name=name: found.update({name: out.clone()})
        )
        for name, module in (("self_attn.o_proj", layer.output), ("mlp.down_proj", layer.mlp.down))
    ]
    found["whole layer"] = layer(x, positions)
    for hook in hooks:
        hook.remove()
    return found


def parts(layer: DecoderLayer) -> dict[str, QuantLinear]:
    return {
        "self_attn.q,k,v": layer.qkv,
        "self_attn.o_proj": layer.output,
        "mlp.gate,up": layer.mlp.gate_up,
        "mlp.down_proj": layer.mlp.down,
    }


def relative_error(got: Tensor, want: Tensor) -> float:
    return float((got.double() - want.double()).norm() / want.double().norm())


def compare(checkpoint: Path, tokens: int) -> bool:
    """Runs on every rank; rank 0 prints."""
    rank, size = dist.get_rank(), dist.get_world_size()
    device = device_of(rank, size)
    # Each rank is also a group of its own, for the layer on one rank.
    alone = [dist.new_group([other]) for other in range(size)][rank]
    heads_divide = Sizes.read(checkpoint).divisible_by(size)
    attention = None if heads_divide else alone  # else it stays whole
    cut = DecoderLayer(checkpoint, attention_group=attention, device=device)
    whole = DecoderLayer(checkpoint, process_group=alone, device=device)

    embedding = plain_tensor(checkpoint, "model.embed_tokens.weight")
    ids = torch.arange(1, tokens + 1) * 7919 % len(embedding)  # a prime: they are spread
    x = embedding[ids][None].to(device, torch.float16)
    positions = torch.arange(tokens, device=device)
    with torch.inference_mode():
        got, want = stages(cut, x, positions), stages(whole, x, positions)
    errors = {name: relative_error(got[name], want[name]) for name in got}
    worst = torch.tensor(list(errors.values()), dtype=torch.float64, device=device)
    dist.all_reduce(worst, op=dist.ReduceOp.MAX)
    passed = bool((worst <= TOLERANCE).all())  # a NaN is not
    if rank == 0:
        report(checkpoint, cut, dict(zip(errors, worst.tolist(), strict=True)), passed)
    return passed


def report(checkpoint: Path, cut: DecoderLayer, errors: dict[str, float], passed: bool) -> None:
    size = dist.get_world_size()
    console = Console(width=100)
    backend = f"{size} ranks, {dist.get_backend()}, {cut.input_norm.device.type}"
    table = Table(title=f"{checkpoint.name}: layer 0 on {backend}, against one rank")
    for heading in ("layer", "k x n per rank", "groups", "padded", "gather", "error", ""):
        table.add_column(heading)
    for name, part in parts(cut).items():
        groups = "1" if part.group_size == -1 else f"{part.k / part.group_size:g}"
        padded = part.weight
        row = [name, f"{part.k} x {part.n}", groups, f"{padded.padded_k} x {padded.padded_n}"]
        row.append("yes" if part.columns is not None else "no")
        table.add_row(*row, *judged(errors.get(name)))
    table.add_row("whole layer", "", "", "", "", *judged(errors["whole layer"]))
    console.print(table)
    verdict = "PASSED" if passed else "FAILED"
    console.print(f"{verdict}: {size} ranks, errors at most {TOLERANCE:g} of the result wanted\n")


def judged(error: float | None) -> tuple[str, str]:
    """A column-parallel result is never whole; the layer after it shows whether it was right."""
    if error is None:
        return "", ""
    return f"{error:.1e}", "ok" if error <= TOLERANCE else "WRONG"


def work(rank: int, size: int, store: str, checkpoint: Path, tokens: int) -> None:
    """One of the ranks that this program started."""
    torch.set_num_threads(1)
    init = {"init_method": f"file://{store}", "rank": rank, "world_size": size}
    dist.init_process_group(backend_of(size), timeout=timedelta(minutes=5), **init)
    passed = compare(checkpoint, tokens)
    dist.destroy_process_group()
    if not passed:
        sys.exit(1)


def start_ranks(size: int, checkpoint: Path, tokens: int) -> bool:
    with tempfile.TemporaryDirectory(prefix="padmarlin-tp-") as folder:
        arguments = (size, os.path.join(folder, "store"), checkpoint, tokens)
        try:
            mp.start_processes(work, arguments, nprocs=size, start_method="forkserver")
        except mp.ProcessExitedException:  # it has printed what is wrong
            return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nproc", type=int, nargs="+", help="ranks to start (default: 2 4)")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--tokens", type=int, default=16)
    options = parser.parse_args()
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1:
        if options.nproc not in (None, [size]):
            parser.error(f"--nproc {options.nproc}: torchrun has started {size} ranks already")
        dist.init_process_group(backend_of(size))
        passed = compare(options.checkpoint, options.tokens)
        dist.destroy_process_group()
        return 0 if passed else 1
    outcomes = [
        start_ranks(count, options.checkpoint, options.tokens) for count in options.nproc or (2, 4)
    ]
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
