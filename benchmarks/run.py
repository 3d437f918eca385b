# SPDX-License-Identifier: Apache-2.0
"""Measures padmarlin.gemm against the machine's limits and its peers: python benchmarks/run.py.

Without a GPU it says so and prints the limits of a GPU named by --gpu. docs/benchmarks.md says how
to read what it prints.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a file, it finds neither benchmarks nor padmarlin

import torch  # noqa: E402
from rich.console import Console  # noqa: E402

from benchmarks import report, rows  # noqa: E402
from benchmarks.cases import Case, Coding, parse_m, quick_cases, select_cases  # noqa: E402
from benchmarks.compare import print_comparison  # noqa: E402
from benchmarks.device import CudaDevice  # noqa: E402
from benchmarks.goals import print_goals  # noqa: E402
from benchmarks.limits import TABLE_M, check_gpu, limit_table  # noqa: E402
from benchmarks.peers import PEERS, chosen_peers  # noqa: E402
from benchmarks.peers.base import Peer  # noqa: E402
from benchmarks.plots import save_plots  # noqa: E402
from benchmarks.rates import measure_rates  # noqa: E402
from benchmarks.rows import Row  # noqa: E402
from benchmarks.session import OK, BrokenDevice, Session  # noqa: E402
from benchmarks.shapes import COLLECTIONS, LAYERS  # noqa: E402
from padmarlin._extension import extension_status  # noqa: E402
from padmarlin.cli.env import collect  # noqa: E402
from padmarlin.tradeoff.gpus import GPUS  # noqa: E402

WIDTH = 200
SECONDS_PER_CASE = 1.0  # of timing, for all contestants of a case together
QUICK_SECONDS_PER_CASE = 0.4
QUICK_SECONDS = 110.0


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
    names = ", ".join(peer.name for peer in PEERS)
    parser.add_argument("--peers", type=words, default=["all"], help=f"all, none, or: {names}")
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


def available(peers: list[Peer]) -> tuple[list[Peer], list[str]]:
    """The peers that can be used here, and why the others cannot."""
    reasons = {peer: peer.missing() for peer in peers}
    usable = [peer for peer in peers if reasons[peer] is None]
    return usable, [f"{peer.name}: {reason}" for peer, reason in reasons.items() if reason]


def measure(args: argparse.Namespace, console: Console, device: CudaDevice) -> int:
    """Runs all cases; 1 if padmarlin gave a wrong result or failed."""
    started = time.monotonic()
    selected = cases(args, "full")
    peers, skipped = available(chosen_peers(args.peers))
    rates = measure_rates(device)
    machine = device.machine(rates, collect())
    report.print_machine(console, machine, rates, skipped)
    budget = args.budget_seconds or (QUICK_SECONDS if args.quick else float("inf"))
    per_case = QUICK_SECONDS_PER_CASE if args.quick else SECONDS_PER_CASE
    session = Session(device, rates.gpu(machine.gpu), machine, peers, per_case, started + budget)
    folder, stem = output(args, machine)
    done: list[list[Row]] = []
    broken = None
    try:
        with torch.no_grad():
            for found in session.rows(selected):
                rows.append(folder / f"{stem}.jsonl", found)
                report.print_line(console, found)
                done.append(found)
    except BrokenDevice as error:
        broken = str(error)
    finish(console, done, folder, stem, len(selected))
    wrong = [f"{row.name}: {row.status}" for row, *_ in done if row.status != OK]
    for line in wrong + ([broken] if broken else []):
        console.print(f"NOT RIGHT: {line}", style="bold red")
    return 1 if wrong or broken else 0


def output(args: argparse.Namespace, machine: rows.Machine) -> tuple[Path, str]:
    """The folder, made if needed, and the beginning of the files' names."""
    folder: Path = args.out or ROOT / "benchmarks" / "results"
    folder.mkdir(parents=True, exist_ok=True)
    gpu = re.sub(r"[^a-z0-9]+", "-", machine.gpu.lower()).strip("-")
    return folder, f"{re.sub(r'[^0-9]', '', machine.date)[:14]}_{gpu}"


def finish(console: Console, done: list[list[Row]], folder: Path, stem: str, planned: int) -> None:
    report.print_rows(console, done)
    every = [row for found in done for row in found]
    try:
        plots = save_plots(every, folder, stem)
    except ImportError as error:
        plots = []
        console.print(f"no plots: {error}; pip install matplotlib")
    print_goals(console, every)
    if len(done) < planned:
        console.print(f"ended after {len(done)} of {planned} cases", style="bold")
    for path in [folder / f"{stem}.jsonl", *plots]:
        console.print(f"wrote {path}")


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    # Tables are wider than what is assumed where the output is no terminal.
    console = Console(soft_wrap=True) if sys.stdout.isatty() else Console(width=WIDTH)
    try:
        if args.compare:
            print_comparison(console, *(rows.read(path) for path in args.compare))
            return 0
        if not torch.cuda.is_available():
            print_limits(args, console, "torch sees no CUDA device")
            return 0
        if not extension_status().available:
            print_limits(args, console, f"no kernels ({extension_status().reason})")
            return 2
        return measure(args, console, CudaDevice())
    except (OSError, ValueError) as error:
        console.print(f"benchmarks/run.py: {error}", style="red")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
