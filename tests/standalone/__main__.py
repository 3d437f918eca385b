# SPDX-License-Identifier: Apache-2.0
"""python -m tests.standalone plain|asan|tsan [NAME...]: the named tests under a sanitizer.

plain and asan run all of them, each case under three schedules; tsan runs those in which threads or
blocks share memory, under ten random schedules with every block resident.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.standalone.build import KINDS, build, instances_of, program_for
from tests.standalone.execute import execute

# Who synchronises: the copy pipeline in every stage layout, the gather, split-K, the addition of
# partial tiles, repack. Tails and alignments change no order.
RACE_TESTS = [
    "pipeline", "pipeline_rows", "groups_without_tiles", "act_order", "stream_k", "split_k",
    "reduction_order", "fixup_stream_k", "fixup_split_k", "eight_bits_asymmetric",
    "repack_four_bits", "repack_eight_bits", "repack_awq", "repack_compressed_tensors",
    "repack_padding", "dequantize_edges", "dequantize_act_order",
]  # fmt: skip
SEEDS = 10
SECONDS = 600


def main(kind: str, tests: list[str], jobs: int) -> bool:
    start = time.monotonic()
    if kind == "tsan":
        tests = tests or RACE_TESTS
    schedules = ["--seeds", str(SEEDS)] if kind == "tsan" else []
    names = sorted(instances_of(*tests))
    program = program_for(kind, *tests)
    build([program], jobs)
    built = time.monotonic()

    def passes(name: str) -> bool:
        status, output = execute(program, [name, *schedules], SECONDS)
        if status != 0:
            print(f"{name} ({kind}), status {status}:\n{output[-8000:]}", flush=True)
        return status == 0

    with ThreadPoolExecutor(jobs) as pool:
        passed = sum(pool.map(passes, names))
    seconds = f"{built - start:.0f} s to build, {time.monotonic() - built:.0f} s to run"
    print(f"{passed} of {len(names)} named tests passed ({kind}); {seconds}")
    return passed == len(names)


if len(sys.argv) < 2 or sys.argv[1] not in KINDS:
    sys.exit(f"usage: python -m tests.standalone {'|'.join(KINDS)} [NAME...]")
sys.exit(0 if main(sys.argv[1], sys.argv[2:], int(os.environ.get("JOBS", "2"))) else 1)
