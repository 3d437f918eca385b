# SPDX-License-Identifier: Apache-2.0
# The one list of sources; tests/test_extension.py compares it with csrc/.
set(PADMARLIN_SOURCES
  csrc/cuda/gemm.cu
  csrc/cuda/instances/gemm_bfloat16_w4.cu
  csrc/cuda/instances/gemm_bfloat16_w8.cu
  csrc/cuda/instances/gemm_half_w4.cu
  csrc/cuda/instances/gemm_half_w8.cu
  csrc/cuda/repack.cu
  csrc/torch/device.cpp
  csrc/torch/explain.cpp
  csrc/torch/gemm.cpp
  csrc/torch/library.cpp
  csrc/torch/repack.cpp
  csrc/torch/workspace.cpp
)
