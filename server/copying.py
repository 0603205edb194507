"""What is said between the server and a process that workers are copied from.

Apart from all other messages, as it is needed before anything is imported that they are made of.
"""

from typing import NamedTuple


class Imported(NamedTuple):
    """All is imported, and the process can be copied. Said by one that waits for its Load."""


class Copy(NamedTuple):
    """Make a copy that waits for a Load at the end of a pipe, which follows."""


class Copied(NamedTuple):
    """The answer to Copy: the number of the process."""

    pid: int
