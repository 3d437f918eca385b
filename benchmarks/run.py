# SPDX-License-Identifier: Apache-2.0
"""Measures padmarlin.gemm against the machine's limits and its peers: python benchmarks/run.py.

Without a GPU it says so and prints the limits of a GPU named by --gpu. docs/benchmarks.md says how
to read what it prints.
"""

from __future__ import annotations

import argparse
import sys
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a file, it finds neither benchmarks nor padmarlin

from rich.console import Console  # noqa: E402

from benchmarks.cases import Case, Coding, parse_m, quick_cases, select_cases  # noqa: E402
from benchmarks.limits import TABLE_M, check_gpu, limit_table  # noqa: E402
from benchmarks.shapes import COLLECTIONS, LAYERS  # noqa: E402
from padmarlin.tradeoff.gpus import GPUS  # noqa: E402


def words(text: str) -> list[str]:
    return text.split(",")


def chosen(text: str, choices: tuple[str, ...]) -> tuple[str, ...]:
    """The words of `text`, each one of `choices`; "both" is all of them."""
    found = choices if text == "both" else tuple(words(text))
    for word in found:
        if word not in choices:
            raise ValueError(f"got {word!r}, expected some of {', '.join(choices)}")
    return found


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/run.py", description=__doc__)
    models = ", ".join([*dict.fromkeys(layer.model for layer in LAYERS), *COLLECTIONS])
    parser.add_argument("--model", type=words, default=["qwen2-72b"], help=models)
    parser.add_argument("--tp", help="1,2,4,8: only these of each layer's own")
    parser.add_argument("--m", type=parse_m, help="1,16,64, or full (default), quick, sweep")
    parser.add_argument("--dtype", default="float16", help="float16, bfloat16 or both")
    parser.add_argument("--bits", default="4", help="4, 8 or both")
    parser.add_argument("--group", type=int, help="rows per group, -1: one; default: the layer's")
    parser.add_argument("--act-order", default="no", help="no, yes or both")
    parser.add_argument("--zeros", default="no", help="asymmetric: no, yes or both")
    parser.add_argument("--peers", type=words, default=["all"], help="names, all or none")
    parser.add_argument("--quick", action="store_true", help="ten parts, four M: two minutes")
    parser.add_argument("--budget-seconds", type=float, help="stop then, keeping what there is")
    parser.add_argument("--out", type=Path, help="folder for JSON lines and plots")
    parser.add_argument("--gpu", default="h200", help=f"without a GPU: {', '.join(GPUS)}")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("OLD", "NEW"))
    return parser.parse_args(arguments)


def codings(args: argparse.Namespace) -> list[Coding]:
    answers = {"no": False, "yes": True}
    dtypes = chosen(args.dtype, ("float16", "bfloat16"))
    bits = [int(word) for word in chosen(args.bits, ("4", "8"))]
    orders = [answers[word] for word in chosen(args.act_order, ("no", "yes"))]
    zeros = [answers[word] for word in chosen(args.zeros, ("no", "yes"))]
    return [Coding(d, b, a, not z) for d, b, a, z in product(dtypes, bits, orders, zeros)]


def cases(args: argparse.Namespace, default_m: str | tuple[int, ...]) -> list[Case]:
    if args.quick:
        return quick_cases(args.m or parse_m("quick"), codings(args), args.group)
    ms = args.m or (parse_m(default_m) if isinstance(default_m, str) else default_m)
    tps = tuple(int(tp) for tp in words(args.tp)) if args.tp else None
    return select_cases(args.model, tps, ms, codings(args), args.group)


def print_limits(args: argparse.Namespace, console: Console, reason: str) -> None:
    gpu = check_gpu(args.gpu)
    console.print(
        f"Nothing is measured here: {reason}. On a machine with a GPU this command measures; "
        f"here it prints what the {gpu.title} allows at best.\n"
    )
    console.print(limit_table(gpu, cases(args, TABLE_M)))


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    # Tables are wider than what is assumed where the output is no terminal.
    console = Console(soft_wrap=True) if sys.stdout.isatty() else Console(width=200)
    import torch

    try:
        if not torch.cuda.is_available():
            print_limits(args, console, "torch sees no CUDA device")
            return 0
        console.print("benchmarks/run.py: this version measures nothing yet")
    except ValueError as error:
        console.print(f"benchmarks/run.py: {error}", style="red")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
