"""Inbox: what a worker says, read as it comes: all that is there by one system call."""

import os
import struct

CHUNK_BYTES = 64 * 1024

_SIZE = struct.Struct("!i")
_LARGE_SIZE = struct.Struct("!Q")
_LARGE = -1
"""In place of a size: the size follows in 8 bytes."""


class Inbox:
    """Cuts what comes through a `multiprocessing` connection into messages.

    `Connection.recv_bytes` takes two system calls for each, and waits for the rest of a large one.
    """

    def __init__(self, fd: int):
        self._fd = fd
        self._held = bytearray()
        """The beginning of a message whose rest has not come."""

    def read(self) -> list[bytes]:
        """The messages that are complete now. Raises EOFError at the end, OSError if it is gone.

        Only for when there is something to read: else it waits.
        """
        read = os.read(self._fd, CHUNK_BYTES)
        if not read:
            raise EOFError
        begin = _SIZE.size
        # What happens for nearly every token: one message, whole.
        if not self._held and len(read) > begin and len(read) == begin + _SIZE.unpack_from(read)[0]:
            return [read[begin:]]
        self._held += read
        messages: list[bytes] = []
        while (bounds := self._bounds()) is not None:
            begin, end = bounds
            messages.append(bytes(self._held[begin:end]))
            del self._held[:end]
        return messages

    def _bounds(self) -> tuple[int, int] | None:
        """Where the first message lies in what is held; None while it is not complete."""
        held = self._held
        if len(held) < _SIZE.size:
            return None
        begin, size = _SIZE.size, _SIZE.unpack_from(held)[0]
        if size == _LARGE:
            begin += _LARGE_SIZE.size
            if len(held) < begin:
                return None
            size = _LARGE_SIZE.unpack_from(held, _SIZE.size)[0]
        return (begin, begin + size) if len(held) >= begin + size else None
