"""The set-up behind the Makefile, with the standard library alone: nothing is installed yet.

This module is read by whatever Python 3 a machine has, so that an old one can say that it is.
"""

import sys


def refuse_old(major: int, minor: int, executable: str) -> None:
    """End the process if this Python is too old."""
    if (major, minor) < (3, 11):
        sys.exit(
            f"corral: needs Python 3.11 or later, and {executable} is {major}.{minor}; "
            "name a later one: PYTHON=python3.12"
        )


refuse_old(sys.version_info[0], sys.version_info[1], sys.executable)
