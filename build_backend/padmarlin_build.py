# SPDX-License-Identifier: Apache-2.0
"""In-tree PEP 517 backend: setuptools, plus what it takes to download nothing that is there.

torch's headers come from the environment that padmarlin is installed *into*. pip's build
isolation hides that environment from imports but does not move it, so it is found by path; only
where there is none does the build ask for torch. Without nvcc there is nothing to compile, and
then neither torch, CMake nor a C++ compiler is asked for. setup.py imports this module too.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  (the hooks that need no change)

ROOT = Path(__file__).resolve().parent.parent

# torch::stable::Tensor, TORCH_BOX and torch_call_dispatcher: the stable ABI as of 2.10.
MIN_TORCH = (2, 10)
# The first nvcc that takes -std=c++20.
MIN_NVCC = (12, 0)
# CMake 3.24 knows every architecture name used in cmake/architectures.cmake.
MIN_CMAKE = (3, 24)


class BuildError(SystemExit):
    """Ends the build with one readable line instead of a traceback."""


def _version(text: str) -> tuple[int, ...]:
    match = re.search(r"(\d+)\.(\d+)", text)
    return tuple(map(int, match.groups())) if match else (0, 0)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def torch_version(torch_dir: Path) -> str:
    """The version of the torch in `torch_dir`, without importing it."""
    match = re.search(
        r"__version__\s*(?::\s*\w+\s*)?=\s*['\"]([^'\"]+)", (torch_dir / "version.py").read_text()
    )
    return match[1] if match else "0.0"


def find_torch() -> Path | None:
    """The directory of the target environment's torch, if there is one new enough."""
    spec = importlib.util.find_spec("torch")  # --no-build-isolation, or asked for and installed
    candidates = [Path(spec.origin).parent] if spec and spec.origin else []
    roots = [sysconfig.get_path("platlib"), sysconfig.get_path("purelib")]
    if site.ENABLE_USER_SITE:
        roots.append(site.getusersitepackages())
    candidates += [Path(root, "torch") for root in roots]
    for directory in candidates:
        if (directory / "version.py").exists() and (
            _version(torch_version(directory)) >= MIN_TORCH
        ):
            return directory
    return None


def require_torch() -> Path:
    """As `find_torch`, or the end of the build."""
    torch_dir = find_torch()
    if torch_dir is None:
        raise BuildError(
            f"padmarlin: compiling CUDA needs torch >= {_dotted(MIN_TORCH)} in {sys.prefix}: run "
            f"`pip install 'torch>={_dotted(MIN_TORCH)}'` first, or drop --no-build-isolation"
        )
    return torch_dir


def _nvcc_candidates() -> list[str]:
    homes = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    on_path = shutil.which("nvcc")
    return [
        *filter(None, [os.environ.get("CUDACXX")]),
        *[f"{home}/bin/nvcc" for home in homes if home],
        *filter(None, [on_path]),
        "/usr/local/cuda/bin/nvcc",
    ]


def find_nvcc() -> Path | None:
    """The nvcc to compile with, or None for a CPU-only install.

    PADMARLIN_CUDA: AUTO (default) compiles whenever there is an nvcc, ON demands one, OFF does
    without. Whether a GPU is present never matters: builders often have none.
    """
    mode = os.environ.get("PADMARLIN_CUDA", "AUTO").upper()
    if mode not in ("AUTO", "ON", "OFF"):
        raise BuildError(f"padmarlin: PADMARLIN_CUDA is {mode!r}, expected ON, OFF or AUTO")
    if mode == "OFF":
        return None
    for candidate in map(shutil.which, _nvcc_candidates()):
        if candidate:
            return _checked_nvcc(Path(candidate))
    if mode == "ON":
        raise BuildError(
            "padmarlin: PADMARLIN_CUDA=ON but there is no nvcc in CUDACXX, CUDA_HOME, CUDA_PATH, "
            "PATH or /usr/local/cuda: install the CUDA toolkit >= " + _dotted(MIN_NVCC)
        )
    return None


def _checked_nvcc(nvcc: Path) -> Path:
    report = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    release = re.search(r"release (\d+\.\d+)", report)
    if release is None or _version(release[1]) < MIN_NVCC:
        raise BuildError(
            f"padmarlin: {nvcc} is release {release[1] if release else 'unknown'}, expected >= "
            f"{_dotted(MIN_NVCC)} (C++20): point CUDA_HOME at a newer toolkit, or set "
            "PADMARLIN_CUDA=OFF for a CPU-only install"
        )
    if not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        raise BuildError(
            f"padmarlin: {nvcc} needs a C++ compiler and there is none: install g++, or set "
            "PADMARLIN_CUDA=OFF for a CPU-only install"
        )
    return nvcc


def _cmake_is_recent() -> bool:
    if not shutil.which("cmake"):
        return False
    report = subprocess.run(["cmake", "--version"], capture_output=True, text=True).stdout
    return _version(report) >= MIN_CMAKE


def _missing_requirements() -> list[str]:
    if find_nvcc() is None:
        return []
    return [
        *([] if _cmake_is_recent() else [f"cmake>={_dotted(MIN_CMAKE)}"]),
        *([] if shutil.which("ninja") else ["ninja"]),
        *([] if find_torch() else [f"torch>={_dotted(MIN_TORCH)}"]),
    ]


def get_requires_for_build_wheel(config_settings=None):
    return _missing_requirements()


def get_requires_for_build_editable(config_settings=None):
    return _missing_requirements()


def get_requires_for_build_sdist(config_settings=None):
    return []


def _announce_cpu_only() -> None:
    print("padmarlin: no nvcc, or PADMARLIN_CUDA=OFF: CPU-only install", file=sys.stderr)


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    if find_nvcc() is None:
        _announce_cpu_only()
    # setuptools packs whatever earlier builds left here, modules since renamed included.
    for stale in (ROOT / "build").glob("lib*"):
        shutil.rmtree(stale)
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    if find_nvcc() is None:
        _announce_cpu_only()
        # An editable install runs from this tree: a library that an earlier one compiled into it
        # would outlive a switch to PADMARLIN_CUDA=OFF.
        (ROOT / "padmarlin" / "_C.so").unlink(missing_ok=True)
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
