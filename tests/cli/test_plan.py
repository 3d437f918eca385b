# SPDX-License-Identifier: Apache-2.0
"""``padmarlin plan``: what it prints, in 100 columns, and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from padmarlin.cli import app
from padmarlin.models import plan_model
from tests.checkpoint_files import REAL
from tests.models.configs import CONFIGS, QWEN2_72B, write

runner = CliRunner()


@pytest.fixture
def qwen(tmp_path: Path) -> str:
    return str(write(tmp_path, QWEN2_72B))


def run(*arguments: str) -> Result:
    return runner.invoke(app, ["plan", *arguments])


def words(text: str) -> str:
    """The text without its line breaks."""
    return " ".join(text.split())


def test_qwen2_72b(qwen: str) -> None:
    result = run(qwen)
    assert result.exit_code == 0, result.output
    text = words(result.output)
    assert "model.layers.{0..79}.mlp.down_proj" in text
    assert "29568 x 8192; K is cut, 80 of them" in text
    assert "2 14784 x 8192 refuses [4] WRONG [5] WRONG [6] 14784 x 8192 4" in text
    assert "K per rank 14784 is 115.5 groups of 128" in text
    assert "padmarlin pad intermediate_size 29568 -> 29696" in text
    assert "already padded to 29696" in text
    assert "does not help here --enforce-eager" in text
    assert "not quantized, so not planned" not in text  # its lm_head is tied here


@pytest.mark.parametrize("name", CONFIGS)
def test_output_is_plain_and_fits(name: str, tmp_path: Path) -> None:
    result = run(str(write(tmp_path, CONFIGS[name])))
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output
    assert result.output.isascii()
    path = str(tmp_path)
    for line in result.output.splitlines():
        assert len(line) <= 100 or path in line, line
        assert line == line.rstrip()


def test_piped_output_has_no_escape_codes(qwen: str) -> None:
    """As another process sees it, whatever that terminal's width."""
    done = subprocess.run(
        [sys.executable, "-m", "padmarlin", "plan", qwen, "--tp", "2"],
        capture_output=True,
        env={"PATH": "", "COLUMNS": "40", "TERM": "xterm-256color", "LANG": "C"},
        check=True,
    )
    assert b"\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines()[1:])) <= 100
    assert b"2  14784 x 8192" in done.stdout
    assert done.stderr == b""


def test_json_is_the_plan(qwen: str) -> None:
    result = run(qwen, "--tp", "2,4", "--json")
    assert result.exit_code == 0
    assert json.loads(result.output) == plan_model(qwen, tp=(2, 4)).to_json()


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["--tp", "1"], 0, "check: vLLM takes every layer"),
        (["--tp", "1,2,4"], 1, "check: FAILED: vLLM at TP 2, 4, 1 layer(s)"),
        (["--tp", "2", "--group-size", "64"], 0, "check: vLLM takes every layer"),
        (["--tp", "4", "--group-size", "32"], 0, "check: vLLM takes every layer"),
        (["--tp", "4", "--group-size", "32", "--engine", "marlin"], 1, "FAILED: strict Marlin"),
        (["--tp", "4", "--group-size", "32", "--engine", "sglang"], 1, "FAILED: SGLang at TP 4"),
        (["--tp", "1", "--act-order"], 1, "FAILED: vLLM at TP 1, 4 layer(s)"),
        (["--tp", "1", "--act-order", "--engine", "sglang"], 0, "SGLang takes every layer"),
        (["--tp", "1", "--asym"], 1, "FAILED: vLLM at TP 1, 4 layer(s)"),
        (["--tp", "2", "--bits", "8"], 1, "FAILED: vLLM"),
    ],
)
def test_check(arguments: list[str], code: int, line: str, qwen: str) -> None:
    result = run(qwen, "--check", *arguments)
    assert result.exit_code == code, result.output
    assert line in result.output.splitlines()[-1]


def test_check_as_json(qwen: str) -> None:
    result = run(qwen, "--check", "--json", "--engine", "sglang", "--tp", "2")
    assert result.exit_code == 1
    assert json.loads(result.output)["check"] == {"engine": "sglang", "passes": False}


def test_without_check_the_plan_is_no_failure(qwen: str) -> None:
    assert run(qwen, "--tp", "2").exit_code == 0


@pytest.mark.parametrize("directory", REAL, ids=lambda path: path.name)
def test_real_checkpoints(directory: Path) -> None:
    result = run(str(directory))
    assert result.exit_code == 0, result.output
    assert "(by config.json)" in result.output


def test_impossible_cuts_are_explained(tmp_path: Path) -> None:
    text = words(run(str(write(tmp_path, CONFIGS["qwen2.5-0.5b"])), "--tp", "4").output)
    assert "4 impossible [1] - - - -" in text
    assert "tensor parallelism as such:" in text
    assert "4 ranks cannot share the 896 columns = 14 heads of q equally" in text


def test_act_order_is_a_bound(qwen: str) -> None:
    assert "<= " in run(qwen, "--act-order", "--tp", "2").output


def test_nothing_to_do(tmp_path: Path) -> None:
    padded = QWEN2_72B | {"intermediate_size": 29696}
    text = run(str(write(tmp_path, padded))).output
    assert "nothing to do" in text
    assert "Why" not in text and "What people try" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tp", "1,x"], "plan: --tp: got '1,x', expected numbers with commas"),
        (["--tp", "0"], "plan_model: tp: got 0"),
        (["--bits", "5"], "plan_model: bits: got 5"),
        (["--group-size", "0"], "plan_model: group_size: got 0"),
        (["--engine", "tgi"], "plan: --engine: got 'tgi', expected 'marlin' or 'vllm' or 'sglang'"),
        (["--bogus"], "padmarlin plan: No such option: --bogus"),
        (["--bits", "four"], "padmarlin plan: Invalid value for '--bits'"),
    ],
)
def test_bad_options_take_one_line(arguments: list[str], message: str, qwen: str) -> None:
    result = run(qwen, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("text", ["", "[]", '{"model_type": "qwen2", "hidden_size": "8192"}'])
def test_bad_files_take_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    result = run(str(path))
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


def test_markup_in_names_is_printed_as_it_is(tmp_path: Path) -> None:
    config = QWEN2_72B | {"quantization_config": {"quant_method": "[red]x[/]"}}
    assert "'[red]x[/]'" in run(str(write(tmp_path, config))).output
