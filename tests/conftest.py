# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the whole suite."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import settings

from tests.kernels import CudaRun, EmulatedRun, cuda_skip_reason, emulator

# Workers share the cores already; threads of their own would only wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)

# The same examples on every run: a failure elsewhere is a failure here.
settings.register_profile("suite", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("suite")


@pytest.fixture(params=["emulator", pytest.param("cuda", marks=pytest.mark.gpu)])
def runner(request):
    """Something that runs the kernels: the emulator, and a CUDA device if there is one."""
    if request.param == "emulator":
        emulator()
        return EmulatedRun()
    reason = cuda_skip_reason()
    if reason is not None:
        pytest.skip(reason)
    return CudaRun()
