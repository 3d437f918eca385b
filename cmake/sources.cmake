# SPDX-License-Identifier: Apache-2.0
# The one list of sources; tests/test_extension.py compares it with csrc/.
set(PADMARLIN_SOURCES
  csrc/cuda/align.cu
  csrc/cuda/dequantize.cu
  csrc/cuda/gemm.cu
  csrc/cuda/instances/gemm_bfloat16_w4.cu
  csrc/cuda/instances/gemm_bfloat16_w8.cu
  csrc/cuda/instances/gemm_half_w4.cu
  csrc/cuda/instances/gemm_half_w8.cu
  csrc/cuda/repack.cu
  csrc/cuda/round.cu
  csrc/cuda/wgmma/wgmma.cu
  csrc/torch/dequantize.cpp
  csrc/torch/device.cpp
  csrc/torch/explain.cpp
  csrc/torch/force_kernel.cpp
  csrc/torch/gemm.cpp
  csrc/torch/library.cpp
  csrc/torch/repack.cpp
  csrc/torch/scratch.cpp
  csrc/torch/workspace.cpp
)

# For sm_90a alone (wgmma); left out of a library for other architectures.
set(PADMARLIN_WGMMA_SOURCES
  csrc/cuda/wgmma/instances/wgmma_bfloat16_w4.cu
  csrc/cuda/wgmma/instances/wgmma_bfloat16_w8.cu
  csrc/cuda/wgmma/instances/wgmma_half_w4.cu
  csrc/cuda/wgmma/instances/wgmma_half_w8.cu
)
