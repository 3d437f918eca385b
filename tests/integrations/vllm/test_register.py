# SPDX-License-Identifier: Apache-2.0
"""What `register` does before vLLM is looked at: the mode, the version, the entry point."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from padmarlin.integrations.vllm import register
from padmarlin.integrations.vllm.mode import VARIABLE, Mode, mode_from_environment
from padmarlin.integrations.vllm.versions import why_unsupported

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "value, mode",
    [
        ("", Mode.AUTO),
        ("auto", Mode.AUTO),
        ("always", Mode.ALWAYS),
        (" Never ", Mode.NEVER),
    ],
)
def test_mode(monkeypatch: pytest.MonkeyPatch, value: str, mode: Mode) -> None:
    monkeypatch.setenv(VARIABLE, value)
    assert mode_from_environment() is mode


def test_mode_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert mode_from_environment() is Mode.AUTO


def test_unknown_mode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "on")
    with pytest.raises(ValueError, match="PADMARLIN_VLLM: got 'on', expected 'auto' or 'always'"):
        register()


@pytest.mark.parametrize(
    "version", ["0.32.0", "0.32.1", "0.33.0", "0.33.0rc1", "0.32.1.dev7+gabc", "0.32.0+cpu", "0.33"]
)
def test_supported_versions(version: str) -> None:
    assert why_unsupported(version) is None


@pytest.mark.parametrize("version", ["0.31.0", "0.34.0", "0.3.2", "1.32.0", "0.320.0", "", "dev"])
def test_unsupported_versions(version: str) -> None:
    reason = why_unsupported(version)
    assert reason is not None and "0.32 to 0.33" in reason


def test_unsupported_version_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    newer = ModuleType("vllm")
    newer.__version__ = "0.99.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", newer)
    monkeypatch.delenv(VARIABLE, raising=False)
    with caplog.at_level(logging.INFO, "vllm.padmarlin"):
        register()
    assert [record.getMessage() for record in caplog.records] == [
        "padmarlin: does nothing: this is vLLM 0.99.0, the plugin supports 0.32 to 0.33"
    ]


def test_never_does_not_even_import_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)  # importing it raises
    monkeypatch.setenv(VARIABLE, "never")
    register()


def test_importing_the_package_imports_no_vllm() -> None:
    code = "import padmarlin.integrations.vllm, sys; print('vllm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False", done.stderr


def test_entry_point_is_declared() -> None:
    section = (ROOT / "pyproject.toml").read_text().split("vllm.general_plugins")[1]
    assert re.match(r'"\]\npadmarlin = "padmarlin.integrations.vllm:register"\n', section)
