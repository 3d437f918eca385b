# SPDX-License-Identifier: Apache-2.0
"""Builds the emulator with CMake and imports it. Incremental; one process builds at a time."""

from __future__ import annotations

import fcntl
import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pybind11

SOURCE = Path(__file__).resolve().parent
BUILD = SOURCE.parents[1] / "build" / "emulator"


def _tool(name: str) -> str:
    """A build tool, from this Python's environment (where pip puts it) or from PATH."""
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    path = shutil.which(name, path=search)
    if path is None:
        raise RuntimeError(f"emulator: {name} not found; remedy: pip install {name}")
    return path


def _run(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"emulator: {' '.join(command)} failed:\n{result.stdout}{result.stderr}")


def _build() -> Path:
    cmake = _tool("cmake")
    _run(
        cmake, "-S", str(SOURCE), "-B", str(BUILD), "-G", "Ninja",
        f"-DCMAKE_MAKE_PROGRAM={_tool('ninja')}",
        "-DCMAKE_BUILD_TYPE=None",  # the flags are the emulator's own
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
    )  # fmt: skip
    _run(cmake, "--build", str(BUILD))
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    return BUILD / f"_emulator{suffix}"


def load() -> ModuleType:
    """The module `_emulator`, built first if a source is newer."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(BUILD / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # held until the file is closed
        path = _build()
        spec = importlib.util.spec_from_file_location("_emulator", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module
