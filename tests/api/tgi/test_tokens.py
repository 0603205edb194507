"""Where tokens lie in a text."""

import pytest

from server.api.tgi.tokens import placed
from server.ipc import Question, Reply, Tokenize, Tokenized
from tests.api.scripted import MODEL, house


def places(text: str, *pieces: bytes) -> list[tuple[str, int, int]]:
    found = placed(Tokenized(tuple(range(len(pieces))), pieces), text)
    assert [token.id for token in found] == list(range(len(pieces)))
    return [(token.text, token.start, token.stop) for token in found]


@pytest.mark.parametrize(
    ("text", "pieces", "expected"),
    [
        ("Hi you", [b"Hi", b" you"], [("Hi", 0, 2), (" you", 2, 6)]),
        ("Hi", [b"<s>", b" Hi", b"</s>"], [("", 0, 0), ("Hi", 0, 2), ("", 2, 2)]),
        ("é", [b"\xc3", b"\xa9"], [("\ufffd", 0, 1), ("\ufffd", 1, 2)]),
        ("HI", [b"<s>", b"hi"], [("<s>", 0, 0), ("hi", 0, 0)]),
        ("", [b"<s>"], [("", 0, 0)]),
        ("", [], []),
    ],
)
def test_places(text: str, pieces: list[bytes], expected: list[tuple[str, int, int]]) -> None:
    assert places(text, *pieces) == expected


def as_bytes(question: Question) -> Reply:
    assert isinstance(question, Tokenize)
    spelled = question.text.encode()
    return Tokenized(tuple(spelled), tuple(bytes([byte]) for byte in spelled))


async def test_a_text_and_a_conversation() -> None:
    async with house() as h:
        h.worker.answer = as_bytes
        ignored = {"max_new_tokens": "whatever"}
        told = await h.post("/tokenize", inputs="Hi", parameters=ignored)
        chat = await h.post("/chat_tokenize", messages=[{"role": "user", "content": "Hi"}])
    assert told.json() == [
        {"id": 72, "text": "H", "start": 0, "stop": 1},
        {"id": 105, "text": "i", "start": 1, "stop": 2},
    ]
    prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert chat.json()["templated_text"] == prompt
    assert len(chat.json()["tokenize_response"]) == len(prompt)


@pytest.mark.parametrize("body", [{"inputs": 1}, {"inputs": "Hi", "model": "nobody"}])
async def test_errors_are_told_in_the_words_of_who_asks(body: dict[str, object]) -> None:
    async with house() as h:
        tgis = await h.client.post("/tokenize", json={"model": MODEL, **body})
        body["content"] = body.pop("inputs")
        llamas = await h.client.post("/tokenize", json={"model": MODEL, **body})
        broken = await h.client.post("/tokenize", content=b'{"inputs": ')
    assert tgis.json().keys() == {"error", "error_type"}
    assert llamas.json()["error"].keys() == {"message", "type", "param", "code"}
    assert broken.json()["error"]["message"].startswith("the body is not JSON")
