// SPDX-License-Identifier: Apache-2.0
// Prints what each kernel asks for at launch, which no compiled kernel knows: a line
// "kernel parameter=value ... bytes" per choice of the parameters that decide it.
#include <cstdio>
#include <initializer_list>

#include "core/mma_block.h"
#include "core/wgmma_block.h"
#include "cuda/dequantize.h"

namespace padmarlin {
namespace {

// Of 8 warps that share 256 columns in two groups along K, or of 4 in one where an sm_90 has no
// more shared memory: what the dispatcher takes most often.
void print_gemm(int bits, bool asymmetric, int m_steps) {
  const int wide = shared_bytes(bits, asymmetric, {m_steps, 4, 2});
  const int bytes = wide <= 227 * 1024 ? wide : shared_bytes(bits, asymmetric, {m_steps, 4, 1});
  std::printf("gemm_kernel bits=%d asymmetric=%d m_steps=%d %d\n", bits, asymmetric, m_steps,
              bytes);
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
  for (const int bits : {4, 8}) {
    for (const bool asymmetric : {false, true}) {
      for (const int m_steps : {1, 2, 4, 8}) padmarlin::print_gemm(bits, asymmetric, m_steps);
    }
  }
  padmarlin::print_wgmma();
  std::printf("dequantize_kernel %d\n", padmarlin::kDequantizeSharedBytes);
}
