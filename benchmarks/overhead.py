# SPDX-License-Identifier: Apache-2.0
"""What one eager padmarlin.gemm costs the CPU before a kernel runs: python benchmarks/overhead.py.

With a GPU: the whole call, m = 1, not waiting for the device. Without one: the same Python and the
same C++ (dispatcher, every check, the allocation of the result), on CPU tensors; left out are
making the device current, asking for its stream, CUDA's allocator and the launch itself. Both are
held against operators of the same kind (torch's stable ABI) that do nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

import padmarlin  # noqa: E402
from benchmarks.cases import Case, Coding  # noqa: E402
from benchmarks.shapes import Layer, Part  # noqa: E402
from benchmarks.weights import random_weight  # noqa: E402
from padmarlin import functional, ops  # noqa: E402
from padmarlin.cli.env import collect  # noqa: E402

SOURCES = ROOT / "benchmarks" / "empty_op"
GOAL_US = 6.0
CALLS = 200  # of a batch: fewer than a stream queues before a launch blocks
BATCHES = 60


def build(name: str) -> Path:
    """benchmarks/empty_op/NAME.cpp as a library, compiled once per source and torch."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        raise RuntimeError("needs a C++20 compiler (g++ 11 or newer)")
    home = Path(torch.__path__[0])
    command = [
        compiler, "-O2", "-std=c++20", "-shared", "-fPIC", "-fvisibility=hidden",
        "-DTORCH_TARGET_VERSION=0x020a000000000000",
        f'-DPADMARLIN_WEIGHT_SCHEMA="{ops.WEIGHT_SCHEMA}"',
        f"-I{SOURCES}", f"-I{ROOT / 'csrc'}", f"-isystem{home / 'include'}",
        str(SOURCES / f"{name}.cpp"), f"-L{home / 'lib'}", "-ltorch_cpu",
    ]  # fmt: skip
    texts = sorted([*SOURCES.rglob("*.*"), *(ROOT / "csrc").rglob("*.h")])
    texts += sorted((ROOT / "csrc" / "torch").glob("*.cpp"))
    content = "".join(map(str, command)) + torch.__version__
    digest = hashlib.sha256(content.encode() + b"".join(t.read_bytes() for t in texts))
    library = ROOT / "build" / "overhead" / f"{name}-{digest.hexdigest()[:16]}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        unfinished = library.with_suffix(f".{time.monotonic_ns()}")
        subprocess.run([*command, "-o", str(unfinished)], check=True)
        unfinished.replace(library)
    return library


def batch_us(call: Callable[[], object], calls: int) -> float:
    """Microseconds of one call, over a batch; the device finishes outside of it."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    end = time.perf_counter()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (end - start) / calls * 1e6


@dataclass(frozen=True)
class Cost:
    what: str
    us: float  # the median of the batches
    fastest_us: float
    above_empty_us: float | None = None  # above an operator of one tensor that does nothing
    above_same_us: float | None = None  # above one that has gemm's arguments


def measure(
    calls: dict[str, Callable[[], object]], batches: int = BATCHES, size: int = CALLS
) -> list[Cost]:
    """All calls in turn, batch by batch. The first two are the empty operators."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        batch_us(call, size)
    for _ in range(batches):
        for name, call in calls.items():
            samples[name].append(batch_us(call, size))
    medians = {name: statistics.median(of) for name, of in samples.items()}
    one, same = list(medians.values())[:2]
    return [Cost(name, us, min(samples[name]), us - one, us - same) for name, us in medians.items()]


def example(device: str) -> tuple[padmarlin.PaddedWeight, Tensor, Tensor]:
    """A weight that is read in no time, activations of one row, a bias."""
    layer = Layer("overhead", "layer", 1024, 1024, "n")
    case = Case(Part(layer, 1, 0, 1024, 1024, 0, 128), 1, Coding())
    weight = random_weight(case, device).repack()
    a = torch.randn(1, weight.k, device=device).to(weight.dtype)
    return weight, a, torch.zeros(weight.n, device=device, dtype=weight.dtype)


def user_calls(
    weight: padmarlin.PaddedWeight, a: Tensor, bias: Tensor
) -> dict[str, Callable[[], object]]:
    batch = a.view(1, 1, -1)
    out = torch.empty(a.shape[0], weight.n, dtype=a.dtype, device=a.device)
    return {
        "padmarlin.gemm(a, weight)": lambda: padmarlin.gemm(a, weight),
        "... with a bias": lambda: padmarlin.gemm(a, weight, bias),
        "... with a of three dimensions": lambda: padmarlin.gemm(batch, weight),
        "... with out": lambda: padmarlin.gemm(a, weight, out=out),
    }


def measure_here(batches: int = BATCHES, size: int = CALLS) -> list[Cost]:
    torch.ops.load_library(str(build("empty")))
    on_gpu = torch.cuda.is_available()
    weight, a, bias = example("cuda" if on_gpu else "cpu")
    arguments = functional.operator_arguments(weight, None, False)
    empty = torch.ops.padmarlin_empty
    calls: dict[str, Callable[[], object]] = {
        "empty operator, one tensor": lambda: empty.one.default(a),
        "empty operator, gemm's arguments": lambda: empty.gemm.default(a, *arguments),
    }
    if on_gpu:
        op = torch.ops.padmarlin.gemm.default
        calls["the operator itself"] = lambda: op(a, *arguments)
        return measure(calls | user_calls(weight, a, bias), batches, size)
    torch.ops.load_library(str(build("checked")))
    checked = torch.ops.padmarlin_checked
    op = checked.gemm.default
    calls["the operator's checks and allocation"] = lambda: op(a, *arguments)
    with (
        mock.patch.object(functional, "_gemm", op),
        mock.patch.object(functional, "_gemm_out", checked.gemm_out.default),
    ):
        return measure(calls | user_calls(weight, a, bias), batches, size)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks/overhead.py", description=__doc__)
    parser.add_argument("--out", type=Path, help="a JSON lines file to append to")
    args = parser.parse_args(arguments)
    try:
        with torch.no_grad():
            costs = measure_here()
    except (RuntimeError, subprocess.CalledProcessError) as error:
        print(f"benchmarks/overhead.py: {error}", file=sys.stderr)
        return 2
    on_gpu = torch.cuda.is_available()
    where = torch.cuda.get_device_name() if on_gpu else "no GPU: CPU tensors, nothing launched"
    facts = collect()
    print(f"{where}; torch {torch.__version__}, Python {facts['python']}, {facts['platform']}")
    print(f"{'us':>8} {'fastest':>8} {'above an empty operator':>24} {'with its arguments':>19}")
    for cost in costs:
        print(
            f"{cost.us:8.2f} {cost.fastest_us:8.2f} {cost.above_empty_us:24.2f} "
            f"{cost.above_same_us:19.2f}  {cost.what}"
        )
    plain = next(cost for cost in costs if cost.what == "padmarlin.gemm(a, weight)")
    kept = plain.above_empty_us is not None and plain.above_empty_us <= GOAL_US
    verdict = "pass" if kept else "miss"
    print(f"goal: at most {GOAL_US} us above an empty operator of one tensor: {verdict}")
    if args.out:
        machine = {key: facts[key] for key in ("commit", "torch", "python", "driver")}
        with open(args.out, "a") as file:
            for cost in costs:
                file.write(json.dumps({"gpu": where, **machine, **asdict(cost)}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
