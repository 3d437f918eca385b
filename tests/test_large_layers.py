# SPDX-License-Identifier: Apache-2.0
"""A 72B-size layer on the CPU: repack's time and memory, measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

MEASURE = """
import json, resource, sys, time
import torch
import padmarlin

def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

torch.set_num_threads(1)  # two would wait for each other where other tests run beside
k, n, group = 29568, 8192, 128
tables = torch.full((k // group, n), 0.01, dtype=torch.float16)

def words(*shape):
    return torch.randint(-2**31, 2**31 - 1, shape, dtype=torch.int32)

def arguments(method, k, n, scales):
    if method == "gptq":
        return {"qweight": words(k // 8, n), "scales": scales}
    if method == "awq":
        return {"qweight": words(k, n // 8), "scales": scales, "qzeros": words(len(scales), n // 8)}
    packed, scale = words(n, k // 8), scales.t().contiguous()
    return {"weight_packed": packed, "weight_scale": scale, "weight_shape": (n, k)}

method = sys.argv[1]
repack = getattr(padmarlin, f"repack_{method}")
# Whatever the first call loads is not the layer's.
repack(**arguments(method, 64, 64, torch.ones(1, 64).half()), group_size=-1)
tensors = arguments(method, k, n, tables)
before, start = peak_bytes(), time.process_time()
weight = repack(**tensors, group_size=group)
seconds = time.process_time() - start
codes = weight.qweight.nbytes
print(json.dumps({"seconds": seconds, "extra": peak_bytes() - before, "packed": codes}))
"""


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed_tensors"])
def test_repacking_29568_x_8192_is_quick_and_bounded_in_memory(method):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, method], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["packed"] == 29568 * 8192 // 2
    assert measured["extra"] < 4 * measured["packed"], measured
    # Of one core, so that what runs beside does not count.
    assert measured["seconds"] < 10, measured
