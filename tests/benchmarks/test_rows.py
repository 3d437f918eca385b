# SPDX-License-Identifier: Apache-2.0
"""The rows: what the issue names is in them, they survive a file, and hide no failure."""

from __future__ import annotations

import json

import pytest

from benchmarks import rows
from benchmarks.cases import Case, Coding
from benchmarks.rows import Machine, Outcome, make_row
from benchmarks.shapes import layers_of, slowest_part

MACHINE = Machine("2026-01-01T00:00:00+00:00", "a GPU", "1", "2.13", "abc", 4300.0, 790.0)
LAYER = layers_of(["qwen2-72b"])[3]
CASE = Case(slowest_part(LAYER, 2), 16, Coding())
NAMED = """date gpu driver torch commit model layer tp m k n group dtype bits act_order kernel us
us_limit fraction_of_limit peer peer_us ratio"""


def row(own, peer=None, other=None):
    return make_row(MACHINE, CASE, "padmarlin 0", 14.5, own, peer, other)


def test_a_row_has_every_field_and_survives_a_file(tmp_path):
    written = row(Outcome("ok", 20.0, 0.1, 1e-4), "cublas", Outcome("ok", 60.0, 0.2, 2e-4))
    path = tmp_path / "rows.jsonl"
    rows.append(path, [written])
    rows.append(path, [written])
    found = json.loads(path.read_text().splitlines()[0])
    assert set(NAMED.split()) <= set(found)
    assert (found["ratio"], found["fraction_of_limit"]) == (3.0, 14.5 / 20)
    assert (found["k"], found["k_start"], found["n"], found["rank"]) == (14784, 14784, 8192, 1)
    assert rows.read(path) == [written, written]


def test_no_time_means_no_ratio():
    wrong = row(Outcome("wrong: 0.1"), "cublas", Outcome("ok", 60.0))
    assert wrong.us is wrong.ratio is wrong.fraction_of_limit is None
    refused = row(Outcome("ok", 20.0), "humming", Outcome("refuses: a straddle"))
    assert refused.peer_us is refused.ratio is None
    assert refused.peer_status == "refuses: a straddle"
    alone = row(Outcome("ok", 20.0))
    assert alone.peer is alone.ratio is None


def test_rows_of_other_weights_have_other_keys():
    asymmetric = make_row(
        MACHINE,
        Case(CASE.part, 16, Coding(symmetric=False)),
        "padmarlin 0",
        14.5,
        Outcome("ok", 20.0),
    )
    assert asymmetric.key != row(Outcome("ok", 20.0)).key
    assert row(Outcome("ok", 20.0)).key == row(Outcome("ok", 30.0)).key


@pytest.mark.parametrize("line", ["{", "[]", '{"m": 1}', '"us"'])
def test_what_is_no_row_is_refused_with_its_line(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n" + line + "\n")
    with pytest.raises(ValueError, match=r"rows.jsonl, line 2: no row of a benchmark"):
        rows.read(path)
