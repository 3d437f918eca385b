# SPDX-License-Identifier: Apache-2.0
"""The layer rules of CONTRIBUTING.md, held by reading includes and imports.

csrc:      core <- cuda <- torch
padmarlin: base <- ops <- weight <- formats, checkpoint, engines, models <- convert,
           shards, nn <- verify, tradeoff <- cli, integrations
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "padmarlin"

CPP_FILES = sorted(
    path for path in CSRC.rglob("*") if path.suffix in (".h", ".cuh", ".cpp", ".cu", ".in")
)
PYTHON_FILES = sorted(PACKAGE.rglob("*.py"))

# A layer imports itself and what stands above it in this list.
PYTHON_LAYERS = [
    {"errors", "jsonfile", "layout", "packing", "partition", "plan", "reference", "_extension"},
    {"ops"},
    {"weight"},
    {"functional", "formats", "checkpoint", "engines", "models"},
    {"convert", "shards", "nn"},
    {"verify", "tradeoff"},
    {"cli", "integrations"},
    {"__main__"},
]

# libtorch's headers come in angle brackets and contain one of these; "torch/checks.h" is ours.
LIBTORCH = re.compile(r"^(torch/(csrc|headeronly|all|extension)|ATen/|c10/)")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def includes(path: Path) -> list[tuple[bool, str]]:
    """(is in angle brackets, what) for every include."""
    found = re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', path.read_text(), re.MULTILINE)
    return [(bracket == "<", target) for bracket, target in found]


def without_comments(text: str) -> str:
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)


def imports(path: Path) -> Iterator[str]:
    """The dotted name of every module that a file imports, wherever in it the import stands."""
    package = list(path.relative_to(ROOT).with_suffix("").parts)[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            # "from padmarlin import ops" imports padmarlin.ops as well.
            yield from (f"{module}.{alias.name}" for alias in node.names)


def layer_of(component: str) -> int:
    found = [i for i, layer in enumerate(PYTHON_LAYERS) if component in layer]
    assert found, f"padmarlin.{component} stands in no layer: place it in PYTHON_LAYERS"
    return found[0]


@pytest.mark.parametrize("path", CPP_FILES, ids=name)
def test_cpp_layer_includes_nothing_to_its_right(path: Path) -> None:
    layer = path.relative_to(CSRC).parts[0]
    allowed_here = {"core": {"core"}, "cuda": {"core", "cuda", "ptx"}, "torch": None}
    assert layer in allowed_here, f"{name(path)}: csrc has the layers core, cuda and torch"
    for angled, target in includes(path):
        first = target.split("/")[0] if "/" in target else None
        if LIBTORCH.match(target):
            assert layer == "torch", f"{name(path)} includes {target}: only csrc/torch may"
        elif target.startswith(("cuda", "cooperative_groups", "nv")) and angled:
            assert layer != "core", f"{name(path)} includes {target}: csrc/core is plain C++"
        elif allowed_here[layer] is not None and first is not None:
            assert first in allowed_here[layer], f"{name(path)} includes {target}"


@pytest.mark.parametrize("path", CPP_FILES, ids=name)
def test_ptx_stands_in_one_folder(path: Path) -> None:
    if CSRC / "cuda" / "ptx" not in path.parents:
        assert not re.search(r"\b(asm|__asm__)\b", without_comments(path.read_text())), (
            f"{name(path)} has inline PTX: it belongs into csrc/cuda/ptx, where the emulator "
            "replaces it"
        )


@pytest.mark.parametrize("path", PYTHON_FILES, ids=name)
def test_python_layer_imports_nothing_to_its_right(path: Path) -> None:
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    for module in imports(path):
        top, *rest = module.split(".")
        assert top not in ("tests", "benchmarks", "examples"), f"{name(path)} imports {module}"
        # padmarlin/__init__.py re-exports from every layer.
        if own == "__init__" or top != "padmarlin" or not rest:
            continue
        is_module = (PACKAGE / rest[0]).is_dir() or (PACKAGE / f"{rest[0]}.py").exists()
        if is_module:
            assert layer_of(rest[0]) <= layer_of(own), f"{name(path)} imports {module}"


@pytest.mark.parametrize("path", PYTHON_FILES, ids=name)
def test_only_integrations_import_engines(path: Path) -> None:
    engines = {"vllm", "transformers", "sglang"}
    # verify compares logits by Transformers, in a process of its own, if it is there.
    program_of_its_own = path == PACKAGE / "verify" / "logits.py"
    if PACKAGE / "integrations" not in path.parents and not program_of_its_own:
        imported = {module.split(".")[0] for module in imports(path)}
        assert not imported & engines, f"{name(path)} imports {imported & engines}"


@pytest.mark.parametrize("path", [*CPP_FILES, *PYTHON_FILES], ids=name)
def test_every_file_opens_with_its_licence(path: Path) -> None:
    assert "SPDX-License-Identifier: Apache-2.0" in path.read_text().partition("\n")[0], name(path)


def test_linters_are_pinned_to_one_version() -> None:
    pinned = dict(re.findall(r'"([\w-]+)==([\d.]+)"', (ROOT / "pyproject.toml").read_text()))
    config = (ROOT / ".pre-commit-config.yaml").read_text()
    hooks = dict(re.findall(r"/(?:[\w]+-)?(ruff|mypy|clang-format).*\n\s*rev: v([\d.]+)", config))
    assert hooks == pinned, "the lint extra of pyproject.toml and .pre-commit-config.yaml differ"


def test_importing_padmarlin_imports_no_engine() -> None:
    code = "import padmarlin, sys; print([m for m in ('vllm', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
