# SPDX-License-Identifier: Apache-2.0
"""Which kernel a case gets, in a line: what `padmarlin env --explain` says of it."""

from __future__ import annotations

import math
import re

import padmarlin
from benchmarks.cases import ACTIVATION_BYTES, Case
from padmarlin._extension import explain_gemm, extension_status, named_devices


def kernel_name(gpu: str, case: Case, weight: padmarlin.PaddedWeight) -> str:
    """`gpu` as the driver names it. A GPU that the dispatcher's table does not name, or a build
    without kernels, leaves the version and the kind of dequantization."""
    known = f"padmarlin {padmarlin.__version__}, {weight.dequant.name.lower()}"
    if not extension_status().available:
        return known
    words = gpu.lower().split()
    name = next((name for name in named_devices() if name in words), None)
    if name is None:
        return known
    text = explain_gemm(
        name,
        m=case.m,
        k=weight.k,
        n=weight.n,
        padded_k=weight.padded_k,
        padded_n=weight.padded_n,
        bits=weight.bits,
        weight_bytes=weight.nbytes,
        asymmetric=weight.zeros is not None,
        gathers=weight.columns is not None,
        copy_bytes=widest_copy(weight),
        batch_invariant=False,
    )
    return ", ".join([known, *chosen(text)])


def widest_copy(weight: padmarlin.PaddedWeight) -> int:
    """Bytes: the largest power of two up to 16 that divides the pitch of contiguous rows. The
    dispatcher does not look at the front pad."""
    return math.gcd(16, ACTIVATION_BYTES * weight.k)


def chosen(text: str) -> list[str]:
    """Kernel, tile and schedule (or the scratch's chunks) and prediction out of the explanation."""
    found = dict(
        re.findall(r"^  (kernel|tile|chunks|schedule|predicted) +(.*)$", text, re.MULTILINE)
    )
    names = ("kernel", "tile", "chunks", "schedule", "predicted")
    return [found[name] for name in names if name in found]
