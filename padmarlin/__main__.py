# SPDX-License-Identifier: Apache-2.0
"""``python -m padmarlin`` is the ``padmarlin`` command."""

from padmarlin.cli import main

if __name__ == "__main__":
    main()
