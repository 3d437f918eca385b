# SPDX-License-Identifier: Apache-2.0
"""Damaged checkpoints and damaged repacks: a report or a refusal, never anything else.

Seeds: 0 to 11; the damages are those of tests/fuzz.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from padmarlin.checkpoint.repacked import INDEX
from padmarlin.shards import repack_checkpoint
from padmarlin.verify import verify_checkpoint
from tests.checkpoint_files import REAL
from tests.fuzz import damage

DAMAGES = [
    damage.bytes_of_tensors,
    damage.header_entries,
    damage.tensors,
    damage.settings,
    damage.bytes_of_config,
]


def copied(source: Path, target: Path) -> Path:
    target.mkdir()
    for file in ("config.json", "model.safetensors"):
        shutil.copy(source / file, target / file)
    return target


def refused(call: Callable[[], object]) -> bool:
    """Anything but an answer and a refusal in the form of all refusals goes through."""
    try:
        call()
    except (ValueError, TypeError) as error:
        if ": got " not in str(error):
            raise
        return True
    return False


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_checkpoint(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    original = random.choice(REAL)
    source = copied(original, tmp_path / "in")
    random.choice(DAMAGES)(random, source)
    refused(lambda: verify_checkpoint(source, tp=1, timeout=30))
    refused(lambda: verify_checkpoint(original, source, tp=1, timeout=30))
    if refused(lambda: repack_checkpoint(source, tmp_path / "out", tp=2)):
        assert not (tmp_path / "out" / INDEX).exists()
    else:
        assert (tmp_path / "out" / INDEX).exists()


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_repack(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    source = copied(random.choice(REAL), tmp_path / "in")
    out = tmp_path / "out"
    repack_checkpoint(source, out, tp=1)
    values = json.loads((out / INDEX).read_text())
    damage.damage_json(random, values)
    (out / INDEX).write_bytes(json.dumps(values).encode(errors="replace"))
    refused(lambda: verify_checkpoint(source, out, timeout=30))
