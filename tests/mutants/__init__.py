# SPDX-License-Identifier: Apache-2.0
"""Planted bugs: does a test fail when a kernel is wrong? `python -m tests.mutants`."""
