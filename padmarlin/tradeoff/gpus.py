# SPDX-License-Identifier: Apache-2.0
"""The two rates of a GPU that bound a matrix product, and the bound: a limit, no measurement."""

from __future__ import annotations

from dataclasses import dataclass

VENDOR = "vendor figure"
MEASURED = "measured by others"


@dataclass(frozen=True)
class Gpu:
    """A GPU's rates, and where they are from."""

    title: str
    bytes_per_second: float
    flops: float  # dense fp16 and bf16 matrix products with fp32 sums, operations per second
    basis: str  # VENDOR or MEASURED
    source: str


# Vendors' rates are peaks that no kernel reaches; measured ones are what a copy and a large cuBLAS
# product reached. Limits from one kind are not comparable with limits from the other.
GPUS = {
    "h200": Gpu(
        "NVIDIA H200 SXM",
        4.3e12,
        790e12,
        MEASURED,
        "copy on the device; cuBLAS on random data, 769-798 TFLOP/s; datasheet: 4.8 TB/s, 989",
    ),
    "h100": Gpu("NVIDIA H100 SXM", 3.35e12, 989.4e12, VENDOR, "NVIDIA's H100 datasheet, dense"),
    "a100": Gpu("NVIDIA A100 SXM 80 GB", 2.039e12, 312e12, VENDOR, "NVIDIA's A100 datasheet"),
    "l40s": Gpu("NVIDIA L40S", 0.864e12, 362.05e12, VENDOR, "NVIDIA's L40S datasheet, dense"),
    "4090": Gpu(
        "NVIDIA GeForce RTX 4090",
        1.008e12,
        165.2e12,
        VENDOR,
        "NVIDIA's Ada architecture paper, dense, fp32 sums",
    ),
}

_ACTIVATION_BYTES = 2  # fp16 or bf16


def limit_us(gpu: Gpu, m: int, k: int, n: int, weight_bytes: int) -> float:
    """The least time of an (m, k) x (k, n) product in microseconds.

    Every byte of weights, input and output is moved once, and every multiplication and addition
    done once; the slower of the two hides the other.
    """
    moved = weight_bytes + m * (k + n) * _ACTIVATION_BYTES
    return max(moved / gpu.bytes_per_second, 2 * m * n * k / gpu.flops) * 1e6
