# SPDX-License-Identifier: Apache-2.0
"""padmarlin inside engines. Each module imports its engine itself, and only when it is used."""
