# SPDX-License-Identifier: Apache-2.0
"""Builds padmarlin/_C.so with CMake when there is an nvcc; the metadata is in pyproject.toml."""

import os
import shlex
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "build_backend"))

import padmarlin_build  # noqa: E402


class CMakeBuild(build_ext):
    """Hands the one extension to CMake. The library speaks torch's stable ABI, not Python's."""

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", "/") + ".so"

    def build_extension(self, ext: Extension) -> None:
        output = Path(self.get_ext_fullpath(ext.name)).resolve()
        nvcc = str(padmarlin_build.find_nvcc())
        # A lasting directory, so that a second build is incremental (setuptools' own build_temp is
        # a fresh one for every editable install). One per nvcc: CMake forgets all other settings
        # when the compiler of a configured directory changes.
        build = ROOT / "build" / f"cmake-{zlib.crc32(nvcc.encode()):08x}"
        cmake, ninja = shutil.which("cmake"), shutil.which("ninja")
        if not cmake or not ninja:
            raise padmarlin_build.BuildError(
                "padmarlin: compiling CUDA needs cmake and ninja: run `pip install cmake ninja`, "
                "or drop --no-build-isolation"
            )
        configure = [
            *(cmake, "-S", ROOT, "-B", build, "-G", "Ninja"),
            # Spelled out on every call: pip's isolated ninja of the last build is gone by now.
            f"-DCMAKE_MAKE_PROGRAM={ninja}",
            f"-DCMAKE_CUDA_COMPILER={nvcc}",
            f"-DTORCH_DIR={padmarlin_build.require_torch()}",
            f"-DPADMARLIN_VERSION={self.distribution.get_version()}",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]
        jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count() or 1)
        subprocess.run(configure, check=True)
        subprocess.run([cmake, "--build", build, "--parallel", jobs], check=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        # A new file, not new content: running processes have the old one mapped.
        output.unlink(missing_ok=True)
        shutil.copyfile(build / "_C.so", output)


class AbiFreeWheel(bdist_wheel):
    """One wheel for every Python 3 and every torch >= 2.10."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


# Everything but CUDA tensors is Python, so a CPU-only install compiles nothing at all: no stub
# library could do or say more than its absence (padmarlin/_extension.py).
extensions = [Extension("padmarlin._C", sources=[])] if padmarlin_build.find_nvcc() else []

setup(
    ext_modules=extensions,
    cmdclass={"build_ext": CMakeBuild, "bdist_wheel": AbiFreeWheel},
)
