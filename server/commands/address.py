"""Where clients find a server."""


def called(host: str) -> str:
    """What programs on this machine call the host that a server listens on."""
    return {"0.0.0.0": "localhost", "::": "localhost"}.get(host, host)
