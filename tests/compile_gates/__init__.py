# SPDX-License-Identifier: Apache-2.0
"""What the compiler made of every kernel, held against a committed budget. Needs no GPU."""
