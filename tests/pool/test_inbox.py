"""What a connection sends, read in whatever parts it comes."""

import os
import socket
import struct
from collections.abc import Generator
from multiprocessing.connection import Connection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.pool.inbox import CHUNK_BYTES, Inbox

Pipe = tuple[socket.socket, socket.socket]


@pytest.fixture
def pipe() -> Generator[Pipe]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def sent(*messages: bytes) -> bytes:
    """The bytes that a connection writes for them."""
    reader, writer = os.pipe()
    with Connection(writer, readable=False) as connection, os.fdopen(reader, "rb") as file:
        for message in messages:
            connection.send_bytes(message)
        connection.close()
        return file.read()


@given(st.lists(st.binary(max_size=40), max_size=6), st.lists(st.integers(1, 60)))
def test_messages_in_any_parts(messages: list[bytes], cuts: list[int]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        inbox = Inbox(ours.fileno())
        rest = sent(*messages)
        read: list[bytes] = []
        for cut in [*cuts, len(rest)]:
            part, rest = rest[:cut], rest[cut:]
            if part:
                theirs.sendall(part)
                read += inbox.read()
        assert read == messages
        theirs.close()
        with pytest.raises(EOFError):
            inbox.read()


def test_a_message_larger_than_a_read(pipe: Pipe) -> None:
    ours, theirs = pipe
    inbox = Inbox(ours.fileno())
    message = os.urandom(2 * CHUNK_BYTES)
    rest = sent(message[: CHUNK_BYTES // 2], b"small") + struct.pack("!i", len(message)) + message
    read: list[bytes] = []
    while rest:
        theirs.sendall(rest[: CHUNK_BYTES // 3])
        rest = rest[CHUNK_BYTES // 3 :]
        read += inbox.read()
    assert read == [message[: CHUNK_BYTES // 2], b"small", message]


def test_the_long_form_of_a_size(pipe: Pipe) -> None:
    ours, theirs = pipe
    inbox = Inbox(ours.fileno())
    whole = struct.pack("!iQ", -1, 3) + b"abc"
    for at in range(len(whole) - 1):
        theirs.sendall(whole[at : at + 1])
        assert inbox.read() == []
    theirs.sendall(whole[-1:] + sent(b"next"))
    assert inbox.read() == [b"abc", b"next"]
