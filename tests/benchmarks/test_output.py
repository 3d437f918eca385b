# SPDX-License-Identifier: Apache-2.0
"""What a run prints and writes: tables, comparisons, plots, exit codes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from benchmarks import report, rows, run
from benchmarks.compare import Change, changes, print_comparison
from benchmarks.peers.own import Gemm
from benchmarks.plots import save_plots
from benchmarks.rates import Rates
from benchmarks.rows import Outcome, make_row
from tests.benchmarks.double import MACHINE, ScriptedDevice, make_case

RATES = Rates(1e12, 1e14, "torch.sum", ("torch.sum: 1000 GB/s",))


def made(m, us, peer="cublas", peer_us=40.0, spread=0.1):
    other = Outcome("ok", peer_us, 0.2, 1e-4)
    case = make_case(m=m)
    return make_row(MACHINE, case, "k", 5.0, Outcome("ok", us, spread, 1e-4), peer, other)


def console():
    return Console(width=200, record=True, file=open("/dev/null", "w"))


def test_the_table_has_a_line_per_peer_and_says_each_case_once():
    out = console()
    report.print_rows(out, [[made(1, 10.0), made(1, 10.0, "humming", 9.0)]])
    said = out.export_text()
    assert said.count("tiny layer TP1 M=1 float16 w4 g64") == 1
    assert "50.0%" in said and "4.000" in said and "0.900" in said


def test_failures_are_said_and_have_no_times():
    failed = make_row(MACHINE, make_case(), "k", 5.0, Outcome("wrong: 0.1"), "cublas",
                      Outcome("fails: x"))  # fmt: skip
    out = console()
    report.print_rows(out, [[failed]])
    report.print_line(out, [failed])
    said = out.export_text()
    assert "wrong: 0.1; fails: x" in said
    assert "us," not in said


def test_a_result_above_the_limit_is_pointed_at():
    out = console()
    report.print_rows(out, [[made(1, 4.0)]])
    assert "above the limit" in " ".join(out.export_text().split())


def test_comparison():
    old = [made(1, 10.0), made(2, 10.0), made(4, 10.0), made(8, 10.0)]
    new = [made(1, 9.0), made(2, 10.1), made(4, 11.0, spread=3.0), made(16, 1.0)]
    verdicts = {change.new.m: change.verdict for change in changes(old, new)}
    # 10 % more within spreads of 0.1 and 3 us is no change.
    assert verdicts == {1: "faster", 2: "same", 4: "same"}
    assert Change(made(1, 10.0), made(1, 12.0)).verdict == "SLOWER"
    out = console()
    print_comparison(out, old, new)
    said = out.export_text()
    assert "3 cases" in said and "1 only in the new run, 1 only in the old one" in said
    out = console()
    print_comparison(out, old, [made(16, 1.0)])
    assert "no case is in both runs" in out.export_text()
    print_comparison(out, old, [replace(made(1, 9.0), gpu="another")])
    assert "different GPUs" in out.export_text()


def test_plots(tmp_path):
    pytest.importorskip("matplotlib")
    every = [made(m, us, peer) for m, us in ((1, 9.0), (16, 10.0), (64, 20.0))
             for peer in ("cublas", "humming")]  # fmt: skip
    saved = save_plots(every, tmp_path, "x")
    assert [path.name for path in saved] == ["x_tiny_us.png", "x_tiny_limit.png", "x_ratios.png"]
    for path in saved:
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000
    assert save_plots([], tmp_path, "y") == []


@pytest.fixture
def a_double(monkeypatch):
    """run.py on the scripted device, three tiny cases."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(run, "extension_status", lambda: type("S", (), {"available": True}))
    monkeypatch.setattr(run, "CudaDevice", ScriptedDevice)
    monkeypatch.setattr(run, "measure_rates", lambda device: RATES)
    monkeypatch.setattr(run, "cases", lambda *_: [make_case(m=m, k=200) for m in (1, 4, 8)])


def test_a_whole_run(a_double, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert run.main(["--out", str(tmp_path / "results"), "--quick"]) == 0
    said = capsys.readouterr().out
    assert "skipped: humming: no package humming" in said
    assert "measured now: reads 1000 GB/s" in said
    (jsonl,) = (tmp_path / "results").glob("*.jsonl")
    assert jsonl.name == "20260101000000_a-double.jsonl"
    found = rows.read(jsonl)
    assert {row.m for row in found} == {1, 4, 8}
    assert {row.peer for row in found} >= {"cublas", "pad+slice", "aligned", "batch_invariant"}
    assert json.loads(jsonl.read_text().splitlines()[0])["gpu"] == "a double"
    assert len(list((tmp_path / "results").glob("*.png"))) == 3
    assert run.main(["--compare", str(jsonl), str(jsonl)]) == 0
    assert "3 cases, old / new 1.000" in capsys.readouterr().out


def test_a_wrong_result_ends_with_an_error(a_double, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Gemm, "__call__", lambda self, a: a.new_zeros(a.shape[0], self.weight.n))
    assert run.main(["--out", str(tmp_path), "--peers", "cublas"]) == 1
    said = capsys.readouterr().out
    assert said.count("NOT RIGHT: ") == 3
    (jsonl,) = tmp_path.glob("*.jsonl")
    assert all(row.us is None for row in rows.read(jsonl))


def test_a_run_that_is_cut_short_says_so_and_keeps_what_it_has(a_double, tmp_path, capsys):
    assert run.main(["--out", str(tmp_path), "--budget-seconds", "1e-9"]) == 0
    assert "ended after 0 of 3 cases" in capsys.readouterr().out


def test_files_that_cannot_be_compared(tmp_path, capsys):
    assert run.main(["--compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "No such file" in capsys.readouterr().out
