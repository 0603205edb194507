"""`chat_template`: names always, jinja where the configuration allows it, at no one's expense."""

import threading
from typing import Any

import pytest

from server.chat import template
from tests.api.scripted import error_of, house

HI = [{"role": "user", "content": "Hi"}]
JINJA = "own: {{ messages[0].content }}"
PATHS = (
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/apply-template",
    "/v1/responses/input_tokens",
)


def body(path: str, **fields: object) -> dict[str, Any]:
    return {"input" if "responses" in path else "messages": HI, **fields}


@pytest.mark.parametrize("path", PATHS[:2])
async def test_by_name(path: str) -> None:
    async with house(template=None, gguf_template="GGUF") as h:
        response = await h.post(path, **body(path, chat_template="alpaca", stop=["x"]))
        assert response.status_code == 200
        assert "x-corral-ignored" not in response.headers
        assert h.prompt().text.endswith("### Instruction:\nHi\n\n### Response:\n")
        assert h.worker.requests[0].stop == ("x", "### Instruction:", "</s>")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["nobodys", "..", "config.yaml"])
async def test_a_name_that_is_none(path: str, name: str) -> None:
    async with house() as h:
        response = await h.post(path, **body(path, chat_template=name))
    assert response.status_code == 400
    error = error_of(response)
    assert error["param"] == "chat_template"
    assert f"no template '{name}'; those that can be named are alpaca, " in error["message"]


@pytest.mark.parametrize("path", PATHS)
async def test_jinja_is_refused(path: str) -> None:
    async with house() as h:
        response = await h.post(path, **body(path, chat_template=JINJA))
    assert response.status_code == 400
    error = error_of(response)
    assert (error["param"], error["code"]) == ("chat_template", "unsupported_parameter")
    assert "server.client_templates" in error["message"]


@pytest.mark.parametrize("path", PATHS[:2])
async def test_jinja_where_it_is_allowed(path: str) -> None:
    async with house(client_templates=True) as h:
        response = await h.post(path, **body(path, chat_template=JINJA))
        assert response.status_code == 200
        assert h.prompt().text == "own: Hi"


async def test_jinja_is_rendered_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    def note(_: str) -> str:
        threads.append(threading.current_thread())
        return ""

    monkeypatch.setattr(template, "_strftime_now", note)
    async with house(client_templates=True) as h:
        source = "{{ strftime_now('') }}"
        await h.post("/v1/apply-template", **body("", chat_template=source))
    assert threads and threading.main_thread() not in threads


@pytest.mark.parametrize(
    ("source", "param", "reason"),
    [
        ("{% if %}", "chat_template", "does not compile"),
        ("{{ 'a' * 99999999999 }}", "messages", "the chat template says: it makes a value"),
        ("{{ x.y.z }}", "messages", "the chat template says"),
        (" " * 200_000, "chat_template", "at most 131072"),
    ],
)
async def test_what_is_wrong_with_it(source: str, param: str, reason: str) -> None:
    async with house(client_templates=True) as h:
        response = await h.post("/v1/chat/completions", **body("", chat_template=source))
    assert response.status_code == 400
    error = error_of(response)
    assert error["param"] == param
    assert reason in error["message"]
