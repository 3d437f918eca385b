# SPDX-License-Identifier: Apache-2.0
"""Tests of padmarlin inside engines; each skips, with the reason, where its engine is absent."""
