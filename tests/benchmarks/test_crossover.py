# SPDX-License-Identifier: Apache-2.0
"""From times to rows of csrc/core/measured.h and back. All times are made up."""

from __future__ import annotations

import math
import shutil
import subprocess
from dataclasses import replace

import pytest

from benchmarks.crossover import Gain, Sample, append, complete_times, crossover, read, starts
from benchmarks.measured_table import HEADER, TableRow, read_rows, rows_of, write_rows

ONE = Sample(
    "2026-01-01T00:00:00+00:00", "a double", None, "2", "abc", 1000.0, 100.0, 90, 132, 4916,
    "tiny", "layer", 1, 1, 192, 96, "float16", 4, False, "mma", 10.0, 0.1, 1e-4, "ok",
)  # fmt: skip
ROW = TableRow(90, 132, 4916, 4, False, 48, 1024, "2026-01-01", "abc", "x_tune.jsonl", "a double")


def made(times, families=("mma", "wgmma"), **more):
    """Samples of one shape: a time of each family by M."""
    return [
        replace(ONE, m=m, family=family, us=us, **more)
        for m, of_m in times.items()
        for family, us in zip(families, of_m, strict=True)
    ]


ALL = ("mma", "wgmma", "scratch")


def test_the_gain_is_the_geometric_mean_over_shapes():
    samples = made({1: (10.0, 20.0), 64: (40.0, 10.0)})
    samples += made({1: (10.0, 80.0), 64: (10.0, 10.0)}, layer="other")
    found = starts(samples).wgmma_gains
    assert list(found) == [1, 64]
    assert found[1].mean == pytest.approx(0.25) and found[64].mean == pytest.approx(2.0)
    assert (found[64].least, found[64].most) == (1.0, 4.0)


@pytest.mark.parametrize(
    "means, expected",
    [
        ([0.5, 0.9, 1.0, 1.2], 3),
        ([1.1, 0.9, 1.0, 1.2], 3),  # what is won once and lost again does not count
        ([1.0, 1.0, 1.0, 1.0], 1),
        ([0.5, 1.5, 1.5, 0.99], None),
    ],
)
def test_the_crossover(means, expected):
    by_m = {m: Gain(mean, mean, mean) for m, mean in enumerate(means, 1)}
    assert crossover(by_m) == expected


def test_the_scratch_is_held_against_what_would_be_taken_without_it():
    """wgmma from M = 64 on, though it had won once at 8; mma below."""
    times = {8: (10, 5, 4), 16: (10, 20, 8), 64: (30, 10, 20), 512: (90, 30, 29), 1024: (9, 3, 2)}
    found = starts(made(times, ALL))
    assert (found.wgmma, found.scratch) == (64, 512)
    means = {m: gain.mean for m, gain in found.scratch_gains.items()}
    assert means == pytest.approx({8: 2.5, 16: 1.25, 64: 0.5, 512: 30 / 29, 1024: 1.5})
    lost_again = {**times, 4096: (50, 10, 11)}
    assert starts(made(lost_again, ALL)).scratch is None


def test_a_gpu_without_wgmma_and_results_without_the_scratch():
    found = starts(made({64: (10, 20), 512: (20, 10)}, ("mma", "scratch")))
    assert (found.wgmma, found.scratch) == (None, 512) and found.wgmma_gains == {}
    found = starts(made({64: (10, 20), 512: (20, 10)}))
    assert (found.wgmma, found.scratch) == (512, None) and found.scratch_gains == {}


@pytest.mark.parametrize(
    "broken",
    [
        lambda s: [*s[:-1], replace(s[-1], us=None, status="wrong: |error| 1.0e-01")],
        lambda s: s[:-1],
        lambda s: [*s, *made({8: (1.0, 1.0)}, layer="other")],
    ],
    ids=["wrong", "missing", "a shape at one M only"],
)
def test_no_row_without_every_time(broken):
    samples = made({8: (10.0, 20.0), 64: (20.0, 10.0)})
    assert starts(samples).wgmma == 64
    with pytest.raises(ValueError, match=r"wrong: |not every shape"):
        complete_times(broken(samples))
    rows, reasons = rows_of([*broken(samples), *made({8: (1.0, 2.0)}, bits=8)], "x.jsonl")
    assert [(row.bits, row.wgmma_from) for row in rows] == [(8, None)]
    assert len(reasons) == 1 and reasons[0].startswith("no row for 4 bits: ")


def test_each_kind_of_weight_has_its_row():
    samples = made({8: (10.0, 20.0), 64: (20.0, 10.0)})
    samples += made({8: (20.0, 10.0), 64: (20.0, 10.0)}, bits=8)
    samples += made({8: (10.0, 20.0), 64: (10.0, 20.0)}, act_order=True)
    rows, reasons = rows_of(samples, "x_tune.jsonl")
    assert reasons == []
    assert [(row.bits, row.aligns, row.wgmma_from) for row in rows] == [
        (4, False, 64), (4, True, None), (8, False, 8),
    ]  # fmt: skip
    assert rows[0] == replace(ROW, wgmma_from=64, scratch_from=None)


def test_a_wrong_scratch_leaves_a_kind_without_a_row():
    samples = made({8: (10.0, 20.0, 9.0), 64: (20.0, 10.0, 9.0)}, ALL)
    assert rows_of(samples, "x.jsonl")[0][0].scratch_from == 8
    wrong = [*samples[:-1], replace(samples[-1], us=None, status="wrong: |error| 1.0e-01")]
    rows, (reason,) = rows_of(wrong, "x.jsonl")
    assert rows == [] and "M=64 w4 scratch: wrong" in reason


def test_results_come_back(tmp_path):
    path = tmp_path / "x.jsonl"
    samples = made({8: (10.0, 20.0)})
    append(path, samples[:1])
    append(path, samples[1:])
    assert read(path) == samples
    append(path, [replace(ONE, num_sms=78)])
    with pytest.raises(ValueError, match="2 GPUs or commits"):
        read(path)
    path.write_text("{}\n")
    with pytest.raises(ValueError, match=r"line 1: no result of tune.py"):
        read(path)
    path.write_text("")
    with pytest.raises(ValueError, match="empty"):
        read(path)


@pytest.fixture
def header(tmp_path):
    return shutil.copy(HEADER, tmp_path / "measured.h")


def test_the_committed_table_is_readable():
    assert all(row.file for row in read_rows())


def test_rows_come_back_and_make_way_for_newer_ones(header):
    before = header.read_text()
    kept = set(read_rows(header))
    h20 = replace(ROW, num_sms=78, wgmma_from=None, scratch_from=None, gpu="a double, too")
    write_rows([ROW, h20], header)
    assert set(read_rows(header)) == kept | {ROW, h20}
    newer = replace(ROW, dram_gbps=4800, wgmma_from=56, date="2026-02-02")
    write_rows([newer], header)
    assert set(read_rows(header)) == kept | {newer, h20}
    others = [replace(newer, bits=8), replace(newer, aligns=True), replace(newer, dram_gbps=3350)]
    write_rows(others, header)
    assert set(read_rows(header)) == kept | {newer, h20, *others}
    # Nothing but rows has changed.
    added = "".join(row.text() for row in read_rows(header) if row not in kept)
    assert len(header.read_text()) == len(before) + len(added)


def test_a_table_that_was_edited_is_not_written(header):
    text = header.read_text()
    header.write_text(text.replace("    {},  //", "    {},  // x\n    {90, 132},  //"))
    with pytest.raises(ValueError, match="is no row of the table"):
        write_rows([ROW], header)
    header.write_text(text.replace("kRows", "kOthers"))
    with pytest.raises(ValueError, match="no table"):
        write_rows([ROW], header)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_what_is_written_compiles_and_means_the_same(header, tmp_path):
    rows = [ROW, replace(ROW, bits=8, aligns=True, wgmma_from=None)]
    (tmp_path / "core").mkdir()
    header = shutil.move(header, tmp_path / "core" / "measured.h")
    committed = len(read_rows(header))
    write_rows(rows, header)
    program = tmp_path / "main.cpp"
    program.write_text(
        f"""
#include "core/measured.h"
using namespace padmarlin;
constexpr Device kDevice{{.num_sms = 132, .architecture = 90, .dram_gbps = 4800}};
constexpr GemmProblem four{{.m = 1, .padded_n = 64, .padded_k = 64, .bits = 4}};
constexpr GemmProblem eight{{.m = 1, .padded_n = 64, .padded_k = 64, .bits = 8, .gathers = true}};
static_assert(kMeasured.size() >= 2 && kMeasured.size() <= {committed + 2});
static_assert(find_measurement(four, kDevice, kMeasured)->wgmma_from == 48);
static_assert(find_measurement(four, kDevice, kMeasured)->scratch_from == 1024);
static_assert(find_measurement(eight, kDevice, kMeasured)->wgmma_from == kNever);
static_assert(find_measurement(four, kDevice, kMeasured)->file == "x_tune.jsonl");
"""
    )
    csrc = HEADER.parents[1]
    command = ["g++", "-std=c++20", "-fsyntax-only", "-Wall", f"-I{tmp_path}", f"-I{csrc}"]
    done = subprocess.run([*command, str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_means_do_not_overflow():
    samples = [s for i in range(400) for s in made({1: (1e4, 1.0)}, layer=str(i))]
    assert math.isclose(starts(samples).wgmma_gains[1].mean, 1e4)
