# SPDX-License-Identifier: Apache-2.0
"""The kernels in programs of their own, without Python, for sanitizers and planted bugs."""
