# SPDX-License-Identifier: Apache-2.0
"""`make demo`: two real GPTQ checkpoints at TP=2, cut where strict Marlin kernels refuse, and held
against what the quantizer's own package computes. Exits with 1 if more than rounding differs."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from safetensors import safe_open

import padmarlin
from padmarlin._extension import extension_status
from padmarlin.plan import RankPlan

CHECKPOINTS = Path(__file__).resolve().parent.parent / "tests" / "checkpoints"
TP = 2
TOLERANCE = 6e-4
"""Rounding a result to fp16 is off by at most 2^-11 = 4.9e-4 of it."""
WIDTH = 100


@dataclass(frozen=True)
class Layer:
    """A quantized layer of a checkpoint, and the reference that came with it."""

    directory: Path
    name: str
    g_idx: torch.Tensor
    x: torch.Tensor  # (5, k) fp16
    y: torch.Tensor  # (5, n) fp32: x @ W in float64
    sha256: str  # of the dequantized W

    @property
    def short_name(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def axis(self) -> str:
        """As engines cut them: o_proj and down_proj take in what other ranks hold parts of, so
        their K is cut and their outputs are summed; the others are cut along N."""
        return "k" if self.short_name in ("o_proj", "down_proj") else "n"


@dataclass(frozen=True)
class Outcome:
    """What became of a layer."""

    layer: Layer
    plan: padmarlin.Plan
    bit_exact: bool
    error: float

    @property
    def passed(self) -> bool:
        return self.bit_exact and self.error < TOLERANCE


def layers_of(directory: Path) -> Iterable[Layer]:
    with (
        np.load(directory / "reference.npz") as reference,
        safe_open(directory / "model.safetensors", framework="pt") as tensors,
    ):
        for name in [key.partition("|")[0] for key in reference.files if key.endswith("|x")]:
            yield Layer(
                directory,
                name,
                tensors.get_tensor(f"{name}.g_idx"),
                torch.from_numpy(reference[f"{name}|x"]),
                torch.from_numpy(reference[f"{name}|y_nobias"]),
                str(reference[f"{name}|sha256_w_fp16"]),
            )


def run_layer(layer: Layer, device: str) -> Outcome:
    """Each rank loads and repacks its shard and multiplies by it; then the ranks come together."""
    shards = [padmarlin.Shard(layer.axis, rank, TP) for rank in range(TP)]
    weights, parts = [], []
    for shard in shards:
        weight = padmarlin.load_weight(layer.directory, layer.name, shard=shard, device=device)
        x = layer.x.to(device)
        if layer.axis == "k":
            start, stop = shard.bounds(x.shape[1])
            x = x[:, start:stop]
        weights.append(weight)
        parts.append(padmarlin.gemm(x, weight).float().cpu())

    row_parallel = layer.axis == "k"
    y = sum(parts) if row_parallel else torch.cat(parts, dim=1)
    dequantized = [padmarlin.dequantize(weight).cpu() for weight in weights]
    whole = torch.cat(dequantized, dim=0 if row_parallel else 1).numpy()
    plan = padmarlin.plan(
        *whole.shape,
        bits=weights[0].bits,
        group_size=weights[0].group_size,
        g_idx=layer.g_idx,
        tp=TP,
        axis=layer.axis,
    )
    return Outcome(
        layer,
        plan,
        hashlib.sha256(np.ascontiguousarray(whole).tobytes()).hexdigest() == layer.sha256,
        float((y - layer.y).norm() / layer.y.norm()),
    )


# ---- what it looks like


def new_table(title: str, caption: str = "") -> Table:
    return Table(
        title=title,
        caption=caption or None,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        caption_style="dim",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )


def mark(good: bool, yes: str, no: str = "") -> Text:
    """``yes`` in green or ``no`` in red; without a ``no``, ``yes`` in either."""
    return Text(yes, style="green") if good else Text(no or yes, style="bold red")


def scientific(value: float) -> str:
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def layer_table(outcomes: Sequence[Outcome]) -> Table:
    table = new_table(
        "Each rank pads and repacks its shard, and multiplies 5 rows by it",
        "Sizes: K x N per rank. Split: both ranks hold rows of one quantization group.\n"
        "Weights and error: all ranks together (cut along K: partial sums added; along N: side by "
        "side)\nagainst the quantizer's own weights and float64 product.",
    )
    for heading in ("layer", "cut"):
        table.add_column(heading, no_wrap=True)
    for heading in ("rank", "holds", "padded to", "adds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("group", "strict\nMarlin", "weights"):
        table.add_column(heading, no_wrap=True)
    table.add_column("error", justify="right", no_wrap=True)
    for outcome in outcomes:
        result = [
            mark(outcome.plan.strict_marlin, "accepts", "refuses"),
            mark(outcome.bit_exact, "bit-exact", "DIFFERS"),
            mark(outcome.error < TOLERANCE, scientific(outcome.error)),
        ]
        title = [outcome.layer.short_name, outcome.layer.axis.upper()]
        for ranks, rank in equal_ranks(outcome.plan.ranks):
            table.add_row(
                *title,
                ranks,
                f"{rank.k} x {rank.n}",
                f"{rank.padded_k} x {rank.padded_n}",
                f"{rank.overhead:.0%}",
                "split" if rank.straddles else "",
                *result,
            )
            title, result = [""] * len(title), [""] * len(result)
    return table


def equal_ranks(ranks: Sequence[RankPlan]) -> Iterable[tuple[str, RankPlan]]:
    """Ranks whose line would look the same, in one: ("0, 1", the first of them)."""
    numbers: dict[tuple[int | bool, ...], list[RankPlan]] = {}
    for rank in ranks:
        looks = (rank.k, rank.n, rank.padded_k, rank.padded_n, rank.straddles)
        numbers.setdefault(looks, []).append(rank)
    for alike in numbers.values():
        yield ", ".join(str(rank.rank) for rank in alike), alike[0]


def reason_table(outcomes: Sequence[Outcome]) -> Table:
    """Strict Marlin's reasons; layers that it refuses for the same ones share a line."""
    layers: dict[tuple[str, ...], list[str]] = {}
    for outcome in outcomes:
        if not outcome.plan.strict_marlin:
            reasons = dict.fromkeys(why for rank in outcome.plan.ranks for why in rank.reasons)
            layers.setdefault(tuple(reasons), []).append(outcome.layer.short_name)
    table = new_table("Why strict Marlin refuses")
    table.show_header = False
    table.add_column(no_wrap=True)
    table.add_column()
    for reasons, names in layers.items():
        table.add_row(", ".join(names), "\n".join(reasons))
    return table


def full_size_table() -> Table:
    k, n = 29568, 8192
    table = new_table(
        f"The same at full size: down_proj of Qwen2-72B, {k} x {n}, groups of 128",
        "Planned, not run. The matrix has 231 groups, an odd number.",
    )
    table.add_column("TP", justify="right")
    for heading in ("rows per rank", "groups per rank", "padded to (at most)", "adds"):
        table.add_column(heading, justify="right")
    table.add_column("strict Marlin", justify="right")
    for tp in (1, 2, 4, 8):
        plan = padmarlin.plan(k, n, tp=tp)
        table.add_row(
            str(tp),
            str(k // tp),
            f"{k / tp / 128:g}",
            str(max(rank.padded_k for rank in plan.ranks)),
            f"{plan.overhead:.1%}",
            mark(plan.strict_marlin, "accepts", "refuses"),
        )
    return table


def choose_device() -> tuple[str, str]:
    """(device, its name and why it is that one)."""
    status = extension_status()
    if not torch.cuda.is_available():
        return "cpu", "the CPU (torch sees no GPU)"
    name = torch.cuda.get_device_name()
    if not status.available:
        return "cpu", f"the CPU ({name}, but no kernels: {status.reason})"
    if torch.cuda.get_device_capability() < (8, 0):
        return "cpu", f"the CPU ({name} is older than compute capability 8.0)"
    return "cuda", name


def show_checkpoint(console: Console, name: str, story: str, device: str) -> list[Outcome]:
    console.print(Panel(story, title=name, title_align="left", border_style="cyan"))
    outcomes = [run_layer(layer, device) for layer in layers_of(CHECKPOINTS / name)]
    console.print(layer_table(outcomes))
    console.print(reason_table(outcomes))
    return outcomes


def main() -> int:
    start = time.perf_counter()
    if hasattr(sys.stdout, "reconfigure"):  # a terminal that cannot draw a character shows "?"
        sys.stdout.reconfigure(errors="replace")
    console = Console(highlight=False)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    device, device_name = choose_device()
    console.print(f"padmarlin {padmarlin.__version__} on {device_name}")

    outcomes = show_checkpoint(
        console,
        "gptq4_g128_sym_i384",
        f"A real checkpoint: one layer of Qwen2, quantized by GPTQModel to 4 bits in groups of 128 "
        f"rows. {TP} tensor-parallel ranks cut each matrix in two. The 384 rows of down_proj are 3 "
        f"groups, so each rank gets one and a half: the case that strict Marlin kernels refuse.",
        device,
    )
    outcomes += show_checkpoint(
        console,
        "gptq4_g64_asym_desc_v2_i1344",
        "Harder: act-order, so the rows of a group of 64 lie anywhere, and with zero points. Each "
        "rank's rows are sorted by group, each group is padded to 16 rows, and the kernel reads "
        "the activations in that order. In a model this small, padding to 64 weighs a lot.",
        device,
    )
    console.print(full_size_table())

    passed = all(outcome.passed for outcome in outcomes)
    refused = sum(not outcome.plan.strict_marlin for outcome in outcomes)
    exact = sum(outcome.bit_exact for outcome in outcomes)
    worst = scientific(max(outcome.error for outcome in outcomes))
    closing = (
        f"Strict Marlin refuses {refused} of {len(outcomes)} layers at TP={TP}; padmarlin ran all "
        f"of them. Weights bit-exact in {exact} of {len(outcomes)}, largest error {worst} "
        f"(tolerance {scientific(TOLERANCE)}), {time.perf_counter() - start:.1f} s."
    )
    title, style = ("PASSED", "green") if passed else ("FAILED", "bold red")
    console.print(Panel(closing, title=title, title_align="left", border_style=style))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
