# SPDX-License-Identifier: Apache-2.0
"""The least time that a GPU's two rates allow, and the table of it: limits, no measurements.

The rates of padmarlin.tradeoff.gpus serve where there is no GPU; a run on a GPU measures its own.
"""

from __future__ import annotations

from rich import box
from rich.table import Table

from benchmarks.cases import Case
from padmarlin.tradeoff.gpus import GPUS, Gpu, limit_us

TABLE_M = (1, 8, 16, 32, 64, 128, 256, 1024, 4096)


def case_limit_us(gpu: Gpu, case: Case) -> float:
    return limit_us(gpu, case.m, case.part.k, case.part.n, case.weight_bytes)


def crossover_m(gpu: Gpu, case: Case) -> float:
    """The M from which a wide product is bound by arithmetic: activations are not counted."""
    per_row = 2 * case.part.k * case.part.n / gpu.flops
    return case.weight_bytes / gpu.bytes_per_second / per_row


def check_gpu(name: str) -> Gpu:
    if name not in GPUS:
        raise ValueError(f"--gpu: got {name!r}, expected one of {', '.join(GPUS)}")
    return GPUS[name]


def limit_table(gpu: Gpu, cases: list[Case]) -> Table:
    """Microseconds by part and M. Cases of the same part and coding share a line."""
    ms = tuple(dict.fromkeys(case.m for case in cases))
    table = Table(box=box.SIMPLE_HEAD, title=title(gpu), title_justify="left", pad_edge=False)
    for heading in ("model", "layer", "TP", "rank", "K x N", "g", "weights", "MB"):
        table.add_column(heading, justify="left" if heading in ("model", "layer") else "right")
    for m in ms:
        table.add_column(f"M={m}", justify="right")
    lines: dict[tuple[object, object], list[Case]] = {}
    for case in cases:
        lines.setdefault((case.part, case.coding), []).append(case)
    for same in lines.values():
        part, coding = same[0].part, same[0].coding
        limits = {case.m: f"{case_limit_us(gpu, case):.1f}" for case in same}
        table.add_row(
            part.layer.model,
            part.layer.name,
            str(part.tp),
            str(part.rank),
            f"{part.k} x {part.n}",
            str(part.group),
            f"{coding.bits} bits{', act-order' if coding.act_order else ''}"
            f"{'' if coding.symmetric else ', zeros'}",
            f"{same[0].weight_bytes / 1e6:.1f}",
            *(limits.get(m, "") for m in ms),
        )
    return table


def title(gpu: Gpu) -> str:
    return (
        f"{gpu.title}: LIMITS in microseconds, not measurements. The larger of bytes / "
        f"{gpu.bytes_per_second / 1e12:.2f} TB/s and operations / {gpu.flops / 1e12:.0f} TFLOP/s\n"
        f"Rates: {gpu.basis} ({gpu.source}). Launch and reduction cost 3-4 us more: an estimate."
    )
