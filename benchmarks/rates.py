# SPDX-License-Identifier: Apache-2.0
"""The machine's two rates, measured in the same run as everything that is held against them.

Reading: the fastest of several kernels that read a large tensor and write next to nothing. A copy
would not do: it writes half of its bytes, and decode hardly writes. Matrix: the largest of a few
large products of cuBLAS on random data, since zeros run faster.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.method import Device, Timed, interleave
from padmarlin.tradeoff.gpus import Gpu

READ_BYTES = 1 << 31  # 36 times an H200's L2, half a millisecond
MATRIX_SIDES = (8192, 4096)  # the larger may be slowed by power, the smaller by its tail


@dataclass(frozen=True)
class Rates:
    bytes_per_second: float
    flops: float
    read_by: str  # which kernel was the fastest
    seen: tuple[str, ...]  # what every candidate reached, or why it did not run

    def gpu(self, title: str) -> Gpu:
        source = f"read by {self.read_by}; cuBLAS on random data"
        return Gpu(title, self.bytes_per_second, self.flops, "measured in this run", source)


Reader = Callable[[Tensor], Tensor]


def _triton_reader() -> Reader:
    return importlib.import_module("benchmarks.triton_read").read_sum


def readers() -> dict[str, Callable[[], Reader]]:
    """Kernels that read a float32 tensor. Made when asked for: one may be missing."""
    return {
        "torch.sum": lambda: torch.sum,
        "torch.amax": lambda: torch.amax,
        "triton": _triton_reader,
    }


def _random(count: int, device: Device) -> Tensor:
    random = torch.Generator(device.name).manual_seed(0)
    return torch.randn(count, generator=random, device=device.name)


def _rate(device: Device, call: Callable[[], Tensor], work: float, calls: int = 4) -> float:
    """Work per second of one call, the median of replays."""
    timed = Timed(device.capture([call] * calls, keep=1), calls)
    (timing,) = interleave([timed], seconds=0.5)
    return work / timing.us * 1e6


def measure_reading(
    device: Device, read_bytes: int = READ_BYTES
) -> tuple[dict[str, float], list[str]]:
    """Bytes per second by kernel, and what to say of each."""
    data = _random(read_bytes // 4, device)
    want = float(data.double().sum())
    found: dict[str, float] = {}
    seen = []
    for name, make in readers().items():
        try:
            reader = make()
            got = float(reader(data))
            # Sums of 2^29 values of order 1 in fp32; one skipped block would show.
            if name != "torch.amax" and abs(got - want) > 1e-3 * data.numel() ** 0.5:
                raise RuntimeError(f"its sum is {got}, not {want}")
            found[name] = _rate(device, lambda reader=reader: reader(data), read_bytes)
            seen.append(f"{name}: {found[name] / 1e9:.0f} GB/s")
        except Exception as error:  # a reader that does not run is no reason to stop
            seen.append(f"{name}: {type(error).__name__}: {error}")
    return found, seen


def measure_matrix(device: Device, sides: tuple[int, ...] = MATRIX_SIDES) -> float:
    """Operations per second."""
    best = 0.0
    for side in sides:
        a, b = (_random(side * side, device).view(side, side).half() for _ in range(2))
        best = max(best, _rate(device, lambda a=a, b=b: a @ b, 2.0 * side**3))
    return best


def wake(device: Device, seconds: float, side: int, clock: Callable[[], float]) -> int:
    """Multiplies for so long: an idle GPU takes a while to raise its clocks. Returns how often."""
    end, replays = clock() + seconds, 0
    a = _random(side * side, device).view(side, side).half()
    replay = device.capture([lambda: a @ a], keep=1)
    while clock() < end:
        replay.time()
        replays += 1
    return replays


def measure_rates(
    device: Device,
    read_bytes: int = READ_BYTES,
    sides: tuple[int, ...] = MATRIX_SIDES,
    wake_seconds: float = 1.0,
) -> Rates:
    if wake_seconds:
        wake(device, wake_seconds, sides[-1], time.monotonic)
    found, seen = measure_reading(device, read_bytes)
    if not found:
        raise RuntimeError(f"benchmarks: no kernel could read: {'; '.join(seen)}")
    fastest = max(found, key=lambda name: found[name])
    return Rates(found[fastest], measure_matrix(device, sides), fastest, tuple(seen))
