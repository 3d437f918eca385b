# SPDX-License-Identifier: Apache-2.0
"""``padmarlin tradeoff`` as a command: its three forms, its plot and its exit codes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from padmarlin.cli import app
from padmarlin.tradeoff import plot, to_markdown, tradeoff
from tests.models.configs import CONFIGS, QWEN2_72B, write

runner = CliRunner()
needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="needs the extra 'plot'"
)


@pytest.fixture
def qwen(tmp_path: Path) -> str:
    return str(write(tmp_path, QWEN2_72B))


def run(*arguments: str) -> Result:
    return runner.invoke(app, ["tradeoff", *arguments])


@pytest.mark.parametrize("name", CONFIGS)
def test_output_is_plain_and_fits(name: str, tmp_path: Path) -> None:
    path = str(write(tmp_path, CONFIGS[name]))
    result = run(path, "--tp", "4", "--rows", "1")
    assert result.exit_code == 0, result.output
    assert result.output.isascii() and "\x1b" not in result.output and result.stderr == ""
    for line in result.output.splitlines():
        assert len(line) <= 100 or path in line, line
        assert line == line.rstrip()


def test_the_table(qwen: str) -> None:
    result = run(qwen, "--tp", "2", "--bits", "4", "--group-size", "128,64")
    lines = result.stdout.splitlines()
    assert "weights: a random model, no real weights: normal, seed 0" in result.stdout
    assert "times: limits, not measurements, of NVIDIA H200 SXM: 4.3 TB/s" in result.stdout
    down = lines.index("model.layers.{0..79}.mlp.down_proj")
    assert lines[down + 1] == "  14784 x 8192 per rank; K is cut, 80 of them"
    assert lines[down + 2].split()[:2] == ["4", "128"] and lines[down + 2].endswith("straddle")
    assert lines[down + 2].split()[3:8] == ["62.5", "+0.0%", "14.5", "14.7", "78.5"]
    assert lines[down + 3].endswith("whole")
    assert lines[-1] == "no straddle at TP 2 with: 4 bits, groups of 64"


def test_json_and_markdown_are_the_library_s(qwen: str) -> None:
    table = tradeoff(qwen, tp=2, bits=(8,), gpu="4090", rows=2)
    arguments = (qwen, "--tp", "2", "--bits", "8", "--gpu", "4090", "--rows", "2")
    assert json.loads(run(*arguments, "--json").stdout) == table.to_json()
    assert run(*arguments, "--markdown").stdout == to_markdown(table) + "\n"
    assert "vendor figure" in run(*arguments, "--markdown").stdout


def test_shape_of_the_json(qwen: str) -> None:
    values = json.loads(run(qwen, "--tp", "2", "--rows", "1", "--json").stdout)
    assert values["schema"] == "padmarlin.tradeoff/1"
    assert list(values) == [
        *("schema", "model", "tp", "gpu", "weights", "m", "layers", "totals"),
        *("straddle_free", "notes"),
    ]
    assert set(values["layers"][0]) == {
        *("name", "role", "count", "k", "n", "axis", "rank", "problem", "choices"),
    }
    assert set(values["layers"][0]["choices"][0]) == {
        *("bits", "group_size", "error", "rank_bytes", "padding", "straddles", "limit_us"),
    }
    assert set(values["layers"][0]["choices"][0]["limit_us"]) == {"1", "16", "256"}


@needs_matplotlib
def test_plot(qwen: str, tmp_path: Path) -> None:
    file = tmp_path / "plot.png"
    result = run(qwen, "--tp", "2", "--rows", "1", "--plot", str(file))
    assert result.exit_code == 0, result.output
    assert file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_without_matplotlib(qwen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot.importlib.util, "find_spec", lambda name: None)
    result = run(qwen, "--tp", "2", "--plot", str(tmp_path / "plot.png"))
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr == (
        "padmarlin tradeoff: plot: got no matplotlib, expected it installed; "
        "pip install 'padmarlin[plot]'\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--tp", "2"], "padmarlin tradeoff: path: got 'nowhere'"),
        (["MODEL"], "padmarlin tradeoff: Missing option '--tp'"),
        (["MODEL", "--tp", "0"], "padmarlin tradeoff: tp: got 0"),
        (["MODEL", "--tp", "2", "--bits", "4;8"], "padmarlin tradeoff: --bits: got '4;8'"),
        (["MODEL", "--tp", "2", "--group-size", "0"], "padmarlin tradeoff: group_size: got 0"),
        (["MODEL", "--tp", "2", "--gpu", "b200"], "padmarlin tradeoff: gpu: got 'b200'"),
        (["MODEL", "--tp", "2", "--json", "--markdown"], "padmarlin tradeoff: --json: got"),
        (["MODEL", "--tp", "2", "--plot", "x.pdf"], "padmarlin tradeoff: plot: got 'x.pdf'"),
        (["MODEL", "--tp", "2", "--plot", "none/x.png"], "padmarlin tradeoff: plot: got 'none/"),
    ],
)
def test_bad_input_takes_one_line(arguments: list[str], message: str, qwen: str) -> None:
    result = run(*[qwen if argument == "MODEL" else argument for argument in arguments])
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith(message) and len(result.stderr.splitlines()) == 1, result.stderr
