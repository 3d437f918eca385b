# SPDX-License-Identifier: Apache-2.0
"""Measured rates on the scripted device: the fastest reader that reads everything counts."""

from __future__ import annotations

import itertools

import pytest
import torch

from benchmarks import rates
from benchmarks.rates import measure_matrix, measure_rates, measure_reading, wake
from tests.benchmarks.double import ScriptedDevice

READERS = {"torch.sum": lambda: torch.sum, "torch.amax": lambda: torch.amax}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(rates, "readers", lambda: READERS)
    interleave = rates.interleave
    monkeypatch.setattr(
        rates, "interleave", lambda timed, seconds: interleave(timed, 0.0, least=1, most=1)
    )


def test_the_fastest_reader_is_the_limit():
    device = ScriptedDevice(us=lambda number: [20.0, 10.0, 50.0][number])
    found = measure_rates(device, read_bytes=1 << 16, sides=(64,), wake_seconds=0)
    assert found.read_by == "torch.amax"
    assert found.bytes_per_second == pytest.approx((1 << 16) / 10e-6)
    assert found.flops == pytest.approx(2 * 64**3 / 50e-6)
    assert found.seen[0] == f"torch.sum: {(1 << 16) / 20e-6 / 1e9:.0f} GB/s"


def test_a_reader_that_skips_or_fails_does_not_count(monkeypatch):
    def missing():
        raise ModuleNotFoundError("No module named 'triton'")

    readers = {"half": lambda: lambda data: data[: data.numel() // 2].sum() + 1e3, "gone": missing}
    monkeypatch.setattr(rates, "readers", lambda: {**READERS, **readers})
    found, seen = measure_reading(ScriptedDevice(), 1 << 16)
    assert set(found) == set(READERS)
    assert "its sum is" in seen[2] and "ModuleNotFoundError" in seen[3]
    monkeypatch.setattr(rates, "readers", lambda: {"gone": missing})
    with pytest.raises(RuntimeError, match="no kernel could read: gone: ModuleNotFoundError"):
        measure_rates(ScriptedDevice(), 1 << 16, (8,), 0)


def test_the_best_matrix_rate_counts():
    device = ScriptedDevice(us=lambda number: [10.0, 100.0][number])
    assert measure_matrix(device, (32, 64)) == pytest.approx(2 * 32**3 / 10e-6)


def test_a_device_that_slept_is_woken():
    device = ScriptedDevice()
    ticks = itertools.count()
    assert wake(device, 5, 8, lambda: next(ticks)) == 4
    assert len(device.log) == 4
