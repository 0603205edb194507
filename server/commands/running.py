"""The server that may be running with a configuration, asked over HTTP."""

from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException

from pydantic import BaseModel, ValidationError

from server.commands.address import called
from server.config import Config

TIMEOUT_S = 0.3
OK = 200
MOST_BYTES = 2**24
"""Of an answer; a model takes some hundred."""


class _Model(BaseModel):
    id: str
    state: str


class _Models(BaseModel):
    data: list[_Model]


def states(config: Config) -> Mapping[str, str] | None:
    """The state of each model by its id; None where no server of ours answers at once."""
    if not config.server.port:
        return None
    connection = HTTPConnection(called(config.server.host), config.server.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/admin/models")
        response = connection.getresponse()
        answer = _Models.model_validate_json(response.read(MOST_BYTES))
    except (OSError, HTTPException, ValidationError):
        return None
    finally:
        connection.close()
    return {model.id: model.state for model in answer.data} if response.status == OK else None
