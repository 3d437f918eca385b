# SPDX-License-Identifier: Apache-2.0
"""examples/tensor_parallel.py: its ways to start, its table, and that it tells a wrong result."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

EXAMPLES = Path(__file__).parent.parent / "examples"
CHECKPOINTS = Path(__file__).parent / "checkpoints"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(EXAMPLES.parent), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        env=environment,
        timeout=300,
        encoding="utf-8",
        cwd=EXAMPLES.parent,
    )


def test_two_ranks_of_torchrun():
    program = "examples/tensor_parallel.py"
    done = run("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", program)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED: 2 ranks" in done.stdout
    assert "1.5" in done.stdout  # groups of down_proj per rank: the straddling case


def test_two_and_four_ranks_of_its_own_with_act_order():
    checkpoint = CHECKPOINTS / "gptq4_g64_asym_desc_v2_i1344"
    done = run("examples/tensor_parallel.py", "--nproc", "2", "4", "--checkpoint", str(checkpoint))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED: 2 ranks" in done.stdout and "PASSED: 4 ranks" in done.stdout
    [two, four] = [line for line in done.stdout.splitlines() if "mlp.down_proj" in line]
    assert " no " in two and " no " in four  # folded into gate and up: no gather


def test_ranks_that_torchrun_has_started_are_not_started_again():
    environment = {**os.environ, "WORLD_SIZE": "2", "PYTHONPATH": str(EXAMPLES.parent)}
    done = subprocess.run(
        [sys.executable, "examples/tensor_parallel.py", "--nproc", "4"],
        capture_output=True,
        env=environment,
        text=True,
        cwd=EXAMPLES.parent,
    )
    assert done.returncode == 2
    assert "torchrun has started 2 ranks already" in done.stderr


@pytest.mark.parametrize("wrong", [None, 1.01, float("nan")])
def test_it_tells_a_wrong_result(wrong, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import tensor_parallel

    calls = []
    stages = tensor_parallel.stages

    def damaged(*arguments):
        calls.append(arguments)
        factor = wrong if wrong is not None and len(calls) == 1 else 1
        return {name: value * factor for name, value in stages(*arguments).items()}

    monkeypatch.setattr(tensor_parallel, "stages", damaged)
    # TCPStore-free: one rank needs no other to find it.
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        passed = tensor_parallel.compare(tensor_parallel.CHECKPOINT, tokens=4)
    finally:
        dist.destroy_process_group()
    assert passed == (wrong is None)
    assert ("PASSED" if wrong is None else "FAILED") in capsys.readouterr().out
    assert torch.is_grad_enabled()
