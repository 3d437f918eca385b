# SPDX-License-Identifier: Apache-2.0
"""The primitives of csrc/cuda/ptx on the device against their host twins, one tiny kernel each."""
