"""Memory that comes from both ends, and whose pages are put together later.

The system gives memory page by page, when each is first touched, and most of the time in which a
context is made goes into that: llama.cpp clears all cells, on one core, from the first to the last.
Meanwhile a thread asks for the pages from the last to the first.

llama.cpp has its cells from malloc and tells nobody where. So malloc is left with one free block
that they fit in.

In pages of 2 MiB it would be quicker to read, but where a hypervisor takes free memory back these
are slower to come by. So they are made of the small ones, when nobody waits for an answer.
"""

import ctypes
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""glibc's, as `MOST_MAPPED`, and for `MAPPED_FROM` and `KEPT` what they grow to in use."""
MOST_MAPPED = 2**16
MAPPED_FROM = 2**25
KEPT = 2**26
EVERYTHING = 2**31 - 1

MADV_POPULATE_WRITE = 23
MADV_COLLAPSE = 25
PAGE = 2**12
HUGE_PAGE = 2**21

STEP = 2**18
"""Bytes at a time, while which nobody else of this process can map memory."""

MORE = 2**26
"""Bytes of the block beyond the cells, for what is allocated before them. Not touched."""

LEAST = 2**25
"""Bytes that are worth it."""

_libc: Any = ctypes.CDLL(None)
_libc.malloc.restype = ctypes.c_void_p
_libc.malloc.argtypes = [ctypes.c_size_t]
_libc.free.argtypes = [ctypes.c_void_p]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


@contextmanager
def coming(n_bytes: int) -> Generator[range]:
    """Within this, a buffer of so many bytes is allocated and cleared from its start.

    Gives the addresses among which it will be; none where they are not known. It only takes longer
    where the C library is not glibc, or Linux older than 5.14.
    """
    if n_bytes < LEAST or not hasattr(_libc, "gnu_get_libc_version"):
        yield range(0)
        return
    _libc.mallopt(M_MMAP_MAX, 0)
    _libc.mallopt(M_TRIM_THRESHOLD, EVERYTHING)
    start = _libc.malloc(n_bytes + MORE)
    _libc.free(start)
    cleared = threading.Event()
    thread = threading.Thread(target=_populate, args=(start or 0, n_bytes, cleared), daemon=True)
    thread.start()
    try:
        yield range(start or 0, (start or 0) + n_bytes + MORE)
    finally:
        cleared.set()
        thread.join()
        _libc.mallopt(M_MMAP_MAX, MOST_MAPPED)
        _libc.mallopt(M_MMAP_THRESHOLD, MAPPED_FROM)
        _libc.mallopt(M_TRIM_THRESHOLD, KEPT)
        _libc.malloc_trim(0)  # what was too much


def _populate(start: int, n_bytes: int, cleared: threading.Event) -> None:
    """Ask for the pages from the end on. It changes nothing in them, and fails where none are."""
    at = (start + n_bytes) // PAGE * PAGE
    while start and at - STEP > start and not cleared.is_set():
        at -= STEP
        if _libc.madvise(at, STEP, MADV_POPULATE_WRITE):
            return


def put_together(addresses: range) -> Iterator[None]:
    """Make a page of 2 MiB of what is there, with each turn: some milliseconds.

    It fails, and changes nothing, where there is nothing, and on Linux older than 6.1.
    """
    for at in range(-(-addresses.start // HUGE_PAGE) * HUGE_PAGE, addresses.stop, HUGE_PAGE):
        if at + HUGE_PAGE <= addresses.stop:
            _libc.madvise(at, HUGE_PAGE, MADV_COLLAPSE)
            yield
