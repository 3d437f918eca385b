# SPDX-License-Identifier: Apache-2.0
"""Measures from how many rows on which kernel family is the fastest: python benchmarks/tune.py.

The families (mma, on sm_90 wgmma, scratch) are forced in turn on the same weights, by the method of
benchmarks/run.py: right first, captured graphs, cold weights, interleaved. The rows for
csrc/core/measured.h are printed, and with --write put there. Without a GPU nothing is measured;
--results reads an earlier run's.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import product as all_of
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a file, it finds neither benchmarks nor padmarlin

import torch  # noqa: E402

from benchmarks.cases import Case, Coding, parse_m  # noqa: E402
from benchmarks.crossover import OK, Sample, append, families_of, read, starts  # noqa: E402
from benchmarks.device import CudaDevice  # noqa: E402
from benchmarks.limits import case_limit_us  # noqa: E402
from benchmarks.measured_table import rows_of, write_rows  # noqa: E402
from benchmarks.method import (  # noqa: E402
    Device,
    Operand,
    Timed,
    capture,
    copies_of,
    interleave,
    num_copies,
    product,
)
from benchmarks.peers.own import Gemm  # noqa: E402
from benchmarks.rates import measure_rates  # noqa: E402
from benchmarks.rows import Machine, Outcome  # noqa: E402
from benchmarks.run import output  # noqa: E402
from benchmarks.session import BrokenDevice  # noqa: E402
from benchmarks.shapes import Part, layers_of, slowest_part  # noqa: E402
from benchmarks.weights import random_activations, random_weight  # noqa: E402
from padmarlin._extension import device_numbers, extension_status, force_kernel  # noqa: E402
from padmarlin.cli.env import collect  # noqa: E402
from padmarlin.tradeoff.gpus import Gpu  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
SECONDS_PER_CASE = 0.3

# Tall, wide, small and ragged; the sizes of TP 1 to TP 8.
PARTS = (
    ("qwen2-72b", "down", 1),
    ("qwen2-72b", "gate_up", 2),
    ("qwen2-72b", "o", 4),
    ("qwen2-72b", "down", 8),
    ("qwen2-72b", "qkv", 8),
    ("glm-4.5-air", "down", 1),
)
# Dense where the families are near each other.
ALL_M = (1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 128, 192, 256, 512, 1024, 2048, 4096)


def parts() -> list[Part]:
    layers = {(layer.model, layer.name): layer for layer in layers_of(["all"])}
    return [slowest_part(layers[model, name], tp) for model, name, tp in PARTS]


@dataclass(frozen=True)
class Tuner:
    """What stays the same during a run. `force` is padmarlin's, or a double in tests."""

    device: Device
    gpu: Gpu
    machine: Machine
    numbers: tuple[int, int, int]  # architecture, SMs, GB/s: as the dispatcher has them
    force: Callable[[str], None]
    seconds_per_case: float = SECONDS_PER_CASE
    clock: Callable[[], float] = time.monotonic

    @property
    def families(self) -> tuple[str, ...]:
        return families_of(self.numbers[0])

    def samples(self, part: Part, coding: Coding, ms: tuple[int, ...]) -> Iterator[list[Sample]]:
        """Those of all families, M by M."""
        weight = random_weight(Case(part, ms[0], coding), self.device.name)
        dense = weight.dense()
        count = num_copies(weight.case.weight_bytes, self.device.l2_bytes)
        operands = copies_of(Gemm(weight.repack()), count)
        for m in ms:
            case = Case(part, m, coding)
            outcomes = self.measure(case, operands, dense)
            yield [self.sample(case, family, outcomes[family]) for family in self.families]

    def measure(
        self, case: Case, operands: list[Operand], dense: torch.Tensor
    ) -> dict[str, Outcome]:
        a = random_activations(case, self.device.name)
        reference = product(a, dense)
        outcomes: dict[str, Outcome] = {}
        running: dict[str, Timed] = {}
        for family in self.families:
            self.force(family)
            try:
                timed = capture(self.device, operands, a, case_limit_us(self.gpu, case))
                error, right = timed.check(reference, a.dtype)
            except Exception as failed:  # one family's failure is a result
                outcomes[family] = Outcome(self.failed(family, failed))
                continue
            finally:
                self.force("auto")
            if right:
                running[family] = timed
                outcomes[family] = Outcome(OK, error=error.norm)
            else:
                outcomes[family] = Outcome(f"wrong: |error| {error.norm:.1e}")
        timings = interleave(list(running.values()), self.seconds_per_case, clock=self.clock)
        for family, timing in zip(running, timings, strict=True):
            outcomes[family] = Outcome(OK, timing.us, timing.spread, outcomes[family].error)
        return outcomes

    def failed(self, family: str, error: Exception) -> str:
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if not self.device.works():
            raise BrokenDevice(f"{family} broke the device: {text}")
        return f"fails: {text}"

    def sample(self, case: Case, family: str, outcome: Outcome) -> Sample:
        part, coding = case.part, case.coding
        architecture, num_sms, dram_gbps = self.numbers
        return Sample(
            **asdict(self.machine),
            architecture=architecture, num_sms=num_sms, dram_gbps=dram_gbps,
            model=part.layer.model, layer=part.layer.name, tp=part.tp,
            m=case.m, k=part.k, n=part.n,
            dtype=coding.dtype, bits=coding.bits, act_order=coding.act_order,
            family=family, us=outcome.us, us_spread=outcome.spread, error=outcome.error,
            status=outcome.status,
        )  # fmt: skip


def run(tuner: Tuner, ms: tuple[int, ...], path: Path) -> list[Sample]:
    """Every part, 4 and 8 bits, in order and with act-order; written and said as they come."""
    done: list[Sample] = []
    for part, bits, act_order in all_of(parts(), (4, 8), (False, True)):
        coding = Coding(bits=bits, act_order=act_order)
        for of_m in tuner.samples(part, coding, ms):
            append(path, of_m)
            done += of_m
            said = ", ".join(
                f"{s.family} {s.status if s.us is None else f'{s.us:.2f} us'}" for s in of_m
            )
            print(f"{of_m[0].name.rpartition(' ')[0]}: {said}", flush=True)
        if tuner.device.name == "cuda":
            torch.cuda.empty_cache()
    return done


def report(samples: list[Sample], path: Path, write: bool) -> int:
    """The gains, the rows of the table; 1 if a kind of weight has none."""
    for kind in sorted({sample.kind for sample in samples}):
        own = [sample for sample in samples if sample.kind == kind]
        try:
            found = starts(own)
        except ValueError:
            continue  # rows_of says why
        for over, by_m in (
            ("mma / wgmma", found.wgmma_gains),
            ("fused / scratch", found.scratch_gains),
        ):
            if not by_m:
                continue
            print(f"\n{kind[0]} bits{', act-order' * kind[1]}: {over}, mean (least, most)")
            for m, gain in by_m.items():
                print(f"  M {m:5}  {gain.mean:.3f}  ({gain.least:.3f}, {gain.most:.3f})")
    rows, reasons = rows_of(samples, path.name)
    print("\nrows of csrc/core/measured.h:")
    print("".join(row.text() for row in rows), end="")
    for reason in reasons:
        print(reason)
    if write and path.resolve().parent != RESULTS:
        raise ValueError(f"--write: {path} is not in benchmarks/results: a row names its results")
    if write and rows:
        write_rows(rows)
        print("written; commit them with the results, and renew docs/cli.md:")
        print("  python -m tests.cli.test_explain")
    return 1 if reasons else 0


def measure(args: argparse.Namespace) -> int:
    numbers = device_numbers(torch.cuda.current_device())
    device = CudaDevice()
    rates = measure_rates(device)
    machine = device.machine(rates, collect())
    tuner = Tuner(device, rates.gpu(machine.gpu), machine, numbers, force_kernel)
    folder, stem = output(args, machine)
    path = folder / f"{stem}_tune.jsonl"
    with torch.no_grad():
        samples = run(tuner, args.m, path)
    print(f"wrote {path}")
    return report(samples, path, args.write)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks/tune.py", description=__doc__)
    parser.add_argument("--m", type=parse_m, default=ALL_M, help="1,16,64; default: 20 up to 4096")
    parser.add_argument("--out", type=Path, help="folder; default: benchmarks/results")
    parser.add_argument("--results", type=Path, help="an earlier run's file, instead of a GPU")
    parser.add_argument("--write", action="store_true", help="put the rows into measured.h")
    args = parser.parse_args(arguments)
    try:
        if args.results:
            return report(read(args.results), args.results, args.write)
        if not torch.cuda.is_available():
            print(
                "Nothing is measured here: torch sees no CUDA device. Where nothing is measured, "
                "a prediction chooses\n(docs/kernel-schedule.md). `padmarlin env --explain M K N` "
                "says which of the two chose."
            )
            return 0
        if not extension_status().available:
            print(f"Nothing is measured here: no kernels ({extension_status().reason})")
            return 2
        return measure(args)
    except (OSError, ValueError, BrokenDevice) as error:
        print(f"benchmarks/tune.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
