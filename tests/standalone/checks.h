// SPDX-License-Identifier: Apache-2.0
// The named tests of this program: a planted bug is caught by one of them, by name.
#pragma once

#include <string>
#include <vector>

#include "cases.h"

namespace padmarlin::emulator {

struct Check {
  std::string name;
  std::vector<GemmCase> gemms = {};
  std::vector<RepackCase> repacks = {};
  std::vector<FixupCase> fixups = {};
  std::vector<RoundCase> rounds = {};
};

const std::vector<Check>& checks();

}  // namespace padmarlin::emulator
