# SPDX-License-Identifier: Apache-2.0
"""Measurements of padmarlin.gemm against the machine's limits and against its peers."""
