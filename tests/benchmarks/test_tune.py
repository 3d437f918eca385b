# SPDX-License-Identifier: Apache-2.0
"""benchmarks/tune.py on the scripted device: real products, times that the test chose."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks import crossover, measured_table, tune
from benchmarks.cases import Coding
from benchmarks.peers.own import Gemm
from benchmarks.rates import Rates
from benchmarks.session import BrokenDevice
from tests.benchmarks.double import GPU, MACHINE, ScriptedDevice, make_case

PART = make_case().part


class Force:
    """Which family is asked for, and each that was while something was captured."""

    def __init__(self):
        self.now = "auto"

    def __call__(self, name):
        self.now = name


def make_tuner(us=None, **more):
    """`us(family, m)` is the time of a call."""
    force = Force()
    captured = []

    class Device(ScriptedDevice):
        def capture(self, calls, keep):
            replay = super().capture(calls, keep)
            captured.append((force.now, replay.outputs[0].shape[0]))
            if us is not None:
                replay.us = us(*captured[-1]) * len(calls) / keep
            return replay

    tuner = tune.Tuner(
        more.pop("device", None) or Device(), GPU, MACHINE, (90, 132, 4916), force, 0.0,
        lambda: 0.0,
    )  # fmt: skip
    return tuner, force, captured


def test_each_family_is_captured_while_it_is_forced():
    tuner, force, captured = make_tuner(lambda family, m: 10.0 if family == "mma" else 5.0 + m)
    found = list(tuner.samples(PART, Coding(bits=8, act_order=True), (1, 9)))
    assert captured == [(family, m) for m in (1, 9) for family in ("mma", "wgmma", "scratch")]
    assert force.now == "auto"
    assert [(s.family, s.m, s.us) for of_m in found for s in of_m] == [
        ("mma", 1, 10.0), ("wgmma", 1, 6.0), ("scratch", 1, 6.0),
        ("mma", 9, 10.0), ("wgmma", 9, 14.0), ("scratch", 9, 14.0),
    ]  # fmt: skip
    for sample in found[0]:
        assert sample.status == "ok" and 0 < sample.error < 1e-3
        assert sample.kind == (8, True)
        assert (sample.architecture, sample.num_sms, sample.dram_gbps) == (90, 132, 4916)


def test_a_family_that_is_wrong_or_fails_has_no_time(monkeypatch):
    real = Gemm.__call__

    def call(self, a):
        if force.now == "wgmma" and a.shape[0] == 1:
            raise RuntimeError("PADMARLIN_KERNEL is 'wgmma', expected\n 'auto' or 'mma'")
        return real(self, a) * (1.1 if force.now == "mma" and a.shape[0] == 2 else 1)

    tuner, force, _ = make_tuner()
    monkeypatch.setattr(Gemm, "__call__", call)

    # A replay repeats what was captured, whatever is forced by then.
    class Device(ScriptedDevice):
        def capture(self, calls, keep):
            replay = super().capture(calls, keep)
            saved = force.now
            time = replay.time

            def as_captured():
                before, force.now = force.now, saved
                try:
                    return time()
                finally:
                    force.now = before

            replay.time = as_captured
            return replay

    tuner = replace(tuner, device=Device())
    first, second = tuner.samples(PART, Coding(), (1, 2))
    assert first[0].status == "ok" and second[1].status == "ok"
    assert first[1].status.startswith(
        "fails: RuntimeError: PADMARLIN_KERNEL is 'wgmma', expected '"
    )
    assert second[0].status.startswith("wrong: |error| 1.0e-01")
    assert first[1].us is None and second[0].us is None
    assert force.now == "auto"


def test_a_broken_device_ends_the_run(monkeypatch):
    tuner, force, _ = make_tuner(device=ScriptedDevice(broken=True))
    monkeypatch.setattr(Gemm, "__call__", lambda self, a: 1 / 0)
    with pytest.raises(BrokenDevice, match="mma broke the device: ZeroDivisionError"):
        next(tuner.samples(PART, Coding(), (1,)))
    assert force.now == "auto"


@pytest.fixture
def a_gpu(monkeypatch, tmp_path):
    """tune.py on the scripted device with one tiny part; its results and header in tmp_path."""
    times = {"mma": lambda m: 10.0, "wgmma": lambda m: 100.0 / m, "scratch": lambda m: 24.0 - m}
    tuner, force, _ = make_tuner(lambda family, m: times[family](m))
    header = tmp_path / "measured.h"
    header.write_text(measured_table.HEADER.read_text())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(tune, "extension_status", lambda: type("S", (), {"available": True}))
    monkeypatch.setattr(tune, "device_numbers", lambda index: (90, 132, 4916))
    monkeypatch.setattr(tune, "CudaDevice", lambda: tuner.device)
    monkeypatch.setattr(tune, "measure_rates", lambda d: Rates(1e12, 1e14, "sum", ("sum",)))
    monkeypatch.setattr(tune, "force_kernel", force)
    monkeypatch.setattr(tune, "SECONDS_PER_CASE", 0.0)
    monkeypatch.setattr(tune.Tuner, "seconds_per_case", 0.0)
    monkeypatch.setattr(tune, "parts", lambda: [PART])
    monkeypatch.setattr(tune, "RESULTS", tmp_path)
    monkeypatch.setattr(tune, "write_rows", lambda rows: measured_table.write_rows(rows, header))
    return tmp_path, header


def test_a_whole_run_prints_and_writes_the_rows(a_gpu, capsys):
    folder, header = a_gpu
    before = header.read_text()
    assert tune.main(["--m", "1,10,20", "--out", str(folder)]) == 0
    said = capsys.readouterr().out
    (results,) = folder.glob("*_tune.jsonl")
    assert said.count('{90, 132, 4916, 4, false, 10, 20, "2026-01-01", "abc", ') == 1
    assert said.count("{90, 132, 4916, ") == 4
    assert (
        "tiny layer TP1 M=10 w8 act-order: mma 10.00 us, wgmma 10.00 us, scratch 14.00 us" in said
    )
    assert "M    20  2.000  (2.000, 2.000)" in said  # mma / wgmma
    assert "M    20  1.250  (1.250, 1.250)" in said  # wgmma / scratch
    assert header.read_text() == before

    assert len(crossover.read(results)) == 3 * 3 * 4
    assert tune.main(["--results", str(results), "--write"]) == 0
    rows = measured_table.read_rows(header)
    own = [row for row in rows if row.gpu == "a double"]
    assert [(row.bits, row.aligns, row.wgmma_from, row.scratch_from) for row in own] == [
        (4, False, 10, 20), (4, True, 10, 20), (8, False, 10, 20), (8, True, 10, 20),
    ]  # fmt: skip
    assert {row.file for row in own} == {results.name}


def test_rows_are_not_written_without_results_beside_the_others(a_gpu, capsys, monkeypatch):
    folder, header = a_gpu
    before = header.read_text()
    (folder / "elsewhere").mkdir()
    assert tune.main(["--m", "1", "--out", str(folder / "elsewhere"), "--write"]) == 2
    assert "is not in benchmarks/results" in capsys.readouterr().err
    assert header.read_text() == before


def test_a_gpu_without_wgmma_tunes_the_others(a_gpu, capsys, monkeypatch):
    folder, _ = a_gpu
    monkeypatch.setattr(tune, "device_numbers", lambda index: (120, 170, 1792))
    assert tune.main(["--m", "1,20", "--out", str(folder)]) == 0
    said = capsys.readouterr().out
    assert '{120, 170, 1792, 4, false, kNever, 20, "2026-01-01", "abc", ' in said
    assert "wgmma " not in said  # but in the name of the folder


def test_without_a_gpu_it_explains(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert tune.main([]) == 0
    assert "Nothing is measured here: torch sees no CUDA device" in capsys.readouterr().out


def test_a_file_that_is_no_result(tmp_path, capsys):
    assert tune.main(["--results", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_the_parts_are_known_layers():
    assert [(p.layer.model, p.layer.name, p.tp) for p in tune.parts()] == list(tune.PARTS)
    assert tune.ALL_M[0] == 1 and tune.ALL_M[-1] == 4096
