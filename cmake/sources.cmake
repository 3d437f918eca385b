# SPDX-License-Identifier: Apache-2.0
# The one list of sources; tests/test_extension.py compares it with csrc/.
set(PADMARLIN_SOURCES
  csrc/cuda/gemm_launch.cu
  csrc/cuda/repack_launch.cu
  csrc/torch/device.cpp
  csrc/torch/gemm.cpp
  csrc/torch/library.cpp
  csrc/torch/repack.cpp
)
