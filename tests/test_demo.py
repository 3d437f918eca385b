# SPDX-License-Identifier: Apache-2.0
"""The examples run, say what they are there to say, and fail when something is wrong."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"


def run(example: str, **environment: str) -> str:
    """What a piped example prints; it must succeed."""
    inherited = {key: value for key, value in os.environ.items() if key != "FORCE_COLOR"}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, EXAMPLES / example],
        capture_output=True,
        env={**inherited, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", **environment},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def load_demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("padmarlin_demo", EXAMPLES / "demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_demo_says_what_it_shows() -> None:
    output = run("demo.py")
    assert "gptq4_g128_sym_i384" in output
    assert "gptq4_g64_asym_desc_v2_i1344" in output
    # Plain text where it is piped, and no line beyond 100 columns.
    assert "\x1b" not in output
    assert max(map(len, output.splitlines())) <= 100

    lines = [" ".join(line.split()) for line in output.splitlines()]
    straddling = next(line for line in lines if line.startswith("down_proj K 0, 1 192 x 256"))
    assert "192 x 256 192 x 256 0% split refuses bit-exact" in straddling
    assert any(
        line.startswith("down_proj in_features per rank 192 is not divisible by min_thread_k = 128")
        for line in lines
    )
    assert "in_features per rank 192 is not divisible by group_size = 128" in lines
    # Ranks of an act-order cut differ in size: a line for each.
    assert any(re.match(r"down_proj K 0 672 x 192 896 x 192 33% split refuses", x) for x in lines)
    assert any(re.match(r"1 672 x 192 832 x 192 24% split", line) for line in lines)
    assert (
        len([line for line in lines if re.search(r"bit-exact \de-\d$|bit-exact \d\.", line)]) == 14
    )
    assert "PASSED" in output
    closing = " ".join(output.replace("│", " ").split())
    assert "Strict Marlin refuses 8 of 14 layers at TP=2; padmarlin ran all of them" in closing
    assert "Weights bit-exact in 14 of 14" in closing


def test_demo_without_unicode() -> None:
    assert "PASSED" in run("demo.py", PYTHONIOENCODING="ascii")


@pytest.mark.parametrize("fault", ["tolerance", "weights"])
def test_demo_fails_when_something_is_off(
    fault: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = load_demo()
    if fault == "tolerance":
        monkeypatch.setattr(demo, "TOLERANCE", 1e-9)
    else:
        dequantize = demo.padmarlin.dequantize

        def one_weight_off(weight):  # type: ignore[no-untyped-def]
            dequantized = dequantize(weight)
            dequantized[-1, -1] = torch.nextafter(dequantized[-1, -1], torch.tensor(9.0).half())
            return dequantized

        monkeypatch.setattr(demo.padmarlin, "dequantize", one_weight_off)
    assert demo.main() == 1
    printed = capsys.readouterr().out
    assert "FAILED" in printed
    assert ("DIFFERS" in printed) == (fault == "weights")


def test_quickstart() -> None:
    output = run("quickstart.py")
    assert "rank 1: 192 x 256" in output
    error = float(re.search(r"relative error (\S+)", output)[1])  # type: ignore[index]
    assert error < 1e-3  # two roundings to fp16 and one of their sum
