// SPDX-License-Identifier: Apache-2.0
// Prints what each kernel asks for at launch, which no compiled kernel knows: a line
// "kernel parameter=value ... bytes" per choice of the parameters that decide it.
#include <cstdio>

#include "core/wgmma_block.h"
#include "cuda/stage.cuh"

namespace padmarlin {
namespace {

template <int kBits, bool kAsymmetric, int kMSlices>
void print_gemm() {
  std::printf("gemm_kernel bits=%d asymmetric=%d m_slices=%d %d\n", kBits, kAsymmetric, kMSlices,
              Stage<kBits, kMSlices, kAsymmetric>::kSharedBytes);
}

template <int kBits, bool kAsymmetric>
void print_gemm_for_every_m() {
  print_gemm<kBits, kAsymmetric, 1>();
  print_gemm<kBits, kAsymmetric, 2>();
  print_gemm<kBits, kAsymmetric, 4>();
}

void print_wgmma() {
  for (const int bits : {4, 8}) {
    for (const int asymmetric : {0, 1}) {
      for (const int rows : wgmma::kBlockRows) {
        std::printf("wgmma_kernel bits=%d asymmetric=%d rows=%d %d\n", bits, asymmetric, rows,
                    wgmma::shared_layout(rows, bits, asymmetric != 0).bytes);
      }
    }
  }
}

}  // namespace
}  // namespace padmarlin

int main() {
  padmarlin::print_gemm_for_every_m<4, false>();
  padmarlin::print_gemm_for_every_m<4, true>();
  padmarlin::print_gemm_for_every_m<8, false>();
  padmarlin::print_gemm_for_every_m<8, true>();
  padmarlin::print_wgmma();
}
