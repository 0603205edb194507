"""The header of a file on the hub, read without the file."""

from pathlib import PurePosixPath

from huggingface_hub import constants, get_session, hf_hub_url
from huggingface_hub.utils import hf_raise_for_status

from server.errors import PullError
from server.gguf import Header, read_beginning
from server.pool.hub import Hub
from server.pool.offers import RemoteFile

FIRST, MOST = 2**20, 2**26
"""Bytes that come before the first attempt to read it, and that it may have: most are words of the
vocabulary."""


def remote_header(hub: Hub, repo: str, commit: str, file: RemoteFile) -> Header:
    """What the file says, whose bytes come until that is complete.

    Raises PullError or ModelLoadError, and what the library raises where the hub refuses it.
    """
    path = PurePosixPath(file.path)
    url = hf_hub_url(repo, file.path, revision=commit, endpoint=hub.url)
    asking = {**hub.headers(), "Accept-Encoding": "identity", "Range": f"bytes=0-{MOST - 1}"}
    data, enough = bytearray(), FIRST
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=asking, timeout=timeout) as response:
        hf_raise_for_status(response)
        for block in response.iter_bytes():
            data += block
            if len(data) > MOST:
                break  # not every server knows ranges
            if len(data) >= enough:
                if header := read_beginning(path, bytes(data), file.size):
                    return header
                enough *= 2
    if header := read_beginning(path, bytes(data), file.size):
        return header
    raise PullError(f"{file.path}: its header does not end within {len(data):,} bytes")
