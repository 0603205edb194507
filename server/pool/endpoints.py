"""Endpoints: RPC servers by one spelling each."""

import socket


def resolved(endpoint: str) -> str:
    """The address:port of what is called host:port; as it is where the name is not known.

    IPv4 alone, as llama.cpp has it. Asks the system, which may ask the network.
    """
    host, _, port = endpoint.partition(":")
    try:
        found = socket.getaddrinfo(host, int(port), socket.AF_INET, socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return endpoint
    # Of several, names tell them in any order.
    address = min(str(each[4][0]) for each in found)
    return f"{address}:{int(port)}"
