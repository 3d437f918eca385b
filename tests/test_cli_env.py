# SPDX-License-Identifier: Apache-2.0
"""``padmarlin env`` and ``--version``: complete, readable, and never failing."""

from __future__ import annotations

import json
import subprocess

import pytest
import torch
from typer.testing import CliRunner

import padmarlin
from padmarlin._extension import ExtensionStatus
from padmarlin.cli import app, env

runner = CliRunner()


def test_version() -> None:
    result = runner.invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output == f"padmarlin {padmarlin.__version__}\n"


def test_json_has_every_fact() -> None:
    result = runner.invoke(app, ["env", "--json"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.output)
    assert facts["torch"] == torch.__version__
    assert set(facts) >= {"padmarlin", "commit", "driver", "driver_needed", "devices", "extension"}
    assert facts["devices"] or facts["no_devices"]


def test_one_screen() -> None:
    result = runner.invoke(app, ["env"])
    assert result.exit_code == 0, result.output
    assert torch.__version__ in result.output
    assert len(result.output.splitlines()) < 24


def test_never_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the driver is upside down")

    def absent(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(torch.cuda, "is_available", broken)
    monkeypatch.setattr(subprocess, "run", absent)
    monkeypatch.setattr(env, "extension_status", lambda: ExtensionStatus(False, "no nvcc"))
    facts = json.loads(runner.invoke(app, ["env", "--json"]).output)
    assert "upside down" in facts["no_devices"]
    assert facts["nvcc"] is None
    result = runner.invoke(app, ["env"])
    assert result.exit_code == 0
    assert "CPU only" in result.output


DEFAULT = ["sm_80", "sm_90a", "compute_80"]


@pytest.mark.parametrize(
    ("capability", "architectures", "expected"),
    [
        ((7, 5), DEFAULT, None),
        ((8, 0), DEFAULT, "sm_80"),
        ((8, 9), DEFAULT, "sm_80"),  # machine code of the same major version
        ((9, 0), DEFAULT, "sm_90a"),
        ((10, 0), DEFAULT, "compute_80"),  # nothing but PTX crosses a major version
        ((12, 0), DEFAULT, "compute_80"),
        ((8, 0), ["sm_86"], None),  # newer than the GPU
        ((9, 0), ["sm_80"], None),
        ((10, 3), ["sm_100a"], None),
        ((10, 3), ["sm_100f"], "sm_100f"),
        ((8, 9), ["sm_80", "sm_89"], "sm_89"),
        ((10, 0), ["compute_90a"], None),  # an 'a' target is for one GPU, PTX too
    ],
)
def test_compiled_for(
    capability: tuple[int, int], architectures: list[str], expected: str | None
) -> None:
    assert env.compiled_for(capability, architectures) == expected


@pytest.mark.parametrize(
    ("capability", "architectures", "expected"),
    [
        ((8, 0), DEFAULT, "sm_80, ready"),
        ((9, 0), DEFAULT, "sm_90a, ready; mma.sync and wgmma"),
        ((9, 0), ["sm_90"], "sm_90, ready; mma.sync alone: no sm_90a"),
        (
            (10, 0),
            DEFAULT,
            "compute_80, compiled by the driver at first use; mma.sync alone",
        ),
        ((12, 0), ["sm_120"], "sm_120, ready; mma.sync alone: wgmma is for sm_90"),
    ],
)
def test_a_device_says_which_kernels_it_gets(
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    architectures: list[str],
    expected: str,
) -> None:
    status = ExtensionStatus(True, "", {"architectures": architectures})
    monkeypatch.setattr(env, "extension_status", lambda: status)
    assert env._kernels_for(capability).startswith(expected)


def test_driver_comparison() -> None:
    assert env._older("570.86.10", "580")
    assert not env._older("580.65.06", "580")
    assert env._older("525.60.11", "525.60.13")
    assert env._driver_needed(13000) == "580"
    assert env._driver_needed(None) is None
