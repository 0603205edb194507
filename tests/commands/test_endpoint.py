"""Which server an evaluation asks, and how it is told that there is none."""

import io
import socket
from pathlib import Path

import pytest
from rich.console import Console

from server.commands.endpoint import Endpoint, reached
from server.commands.failure import CommandError
from server.config import Config, ModelConfig, ServerConfig
from server.errors import ModelNotFound
from tests.commands.http_server import Asked, Said, answering

MODELS = {"data": [{"id": "big-horse-7b"}, {"id": "small-cat"}]}
INFO = "/tokenizer_info?model=big-horse-7b"


def never() -> Config:
    raise AssertionError("the configuration is not needed")


def quiet() -> Console:
    return Console(file=io.StringIO())


def reach(url: str | None, model: str = "big-horse-7b", key: str = "") -> Endpoint:
    with reached(never, model, url, key, 1, quiet()) as endpoint:
        return endpoint


def corral(asked: Asked) -> Said:
    match asked.path:
        case "/v1/models":
            return Said(200, MODELS)
        case "/v1/models/big-horse-7b":
            return Said(200, MODELS["data"][0])
        case path if path == INFO:
            return Said(200, {})
        case _:
            return Said(404, {"error": {"message": "no such thing"}})


def test_a_server_that_has_the_model() -> None:
    with answering(corral) as server:
        endpoint = reach(f"{server.url}/v1/", key="secret")
    assert endpoint == Endpoint(server.url, "big-horse-7b", "secret")
    assert all(asked.headers["authorization"] == "Bearer secret" for asked in server.asked)


@pytest.mark.parametrize(
    ("model", "hint"),
    [("big-horse", "it has big-horse-7b"), ("xyz", "it has big-horse-7b, small-cat")],
)
def test_a_server_without_the_model(model: str, hint: str) -> None:
    with answering(corral) as server, pytest.raises(CommandError, match=hint):
        reach(server.url, model)


def test_a_server_that_wants_a_key() -> None:
    with (
        answering(lambda _: Said(401, {"error": {"message": "who are you?"}})) as server,
        pytest.raises(CommandError, match="wants a key: --api-key, or OPENAI_API_KEY"),
    ):
        reach(server.url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "127.0.0.1:{port}", "http://[::"])
def test_no_server(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(CommandError, match="start `corral serve` there, or leave --url out"):
        reach(url.format(port=port))


def test_a_model_that_still_loads_is_waited_for() -> None:
    busy = [Said(503, {"error": {"message": "is still loading"}}, {"retry-after": "1"})]

    def answer(asked: Asked) -> Said:
        return busy.pop() if asked.path == INFO and busy else corral(asked)

    with answering(answer) as server:
        reach(server.url)
    assert [asked.path for asked in server.asked].count(INFO) == 2


def test_a_model_that_cannot_be_loaded_is_told() -> None:
    def answer(asked: Asked) -> Said:
        return Said(503, {"error": {"message": "does not fit"}}) if asked.path == INFO else (
            corral(asked)
        )  # fmt: skip

    with answering(answer) as server, pytest.raises(CommandError, match=r"^does not fit$"):
        reach(server.url)


def test_servers_of_others_are_believed() -> None:
    def answer(asked: Asked) -> Said:
        return Said(404, "?") if asked.path == INFO else corral(asked)

    with answering(answer) as server:
        assert reach(server.url).url == server.url


def test_the_configured_address_comes_first() -> None:
    with answering(corral) as server:
        port = int(server.url.rpartition(":")[2])
        config = Config(server=ServerConfig(port=port))
        with reached(lambda: config, "big-horse-7b", None, "", 1, quiet()) as endpoint:
            assert endpoint.url == server.url
        # It has no such model, and nor have we.
        with (
            pytest.raises(ModelNotFound),
            reached(lambda: config, "xyz", None, "", 1, quiet()),
        ):
            pass


def test_a_server_of_our_own_that_cannot_load(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF but no more than that")
    config = Config(server=ServerConfig(port=0), models={"broken": ModelConfig(path=path)})
    with (
        pytest.raises(CommandError) as failed,
        reached(lambda: config, "broken", None, "", 1, quiet()),
    ):
        pass
    assert "broken" in str(failed.value)
