"""When the tokens of a prompt are counted, and which of them are kept."""

from dataclasses import replace

import pytest

from server.ipc import Question, Reply, Text, Tokenize, Tokenized
from tests.api.scripted import INFO, House, house


def as_bytes(question: Question) -> Reply:
    """A vocabulary of the 256 bytes, with a BOS of 1 in front."""
    assert isinstance(question, Tokenize)
    raw = question.text.encode()
    return Tokenized((1, *raw), (b"<s>", *(bytes([byte]) for byte in raw)))


async def prompt_of(h: House, inputs: str, **parameters: object) -> object:
    h.worker.answer = as_bytes
    response = await h.post("/generate", inputs=inputs, parameters=parameters)
    assert response.status_code == 200, response.text
    return h.worker.requests[-1].prompt


async def test_what_surely_fits_is_not_counted() -> None:
    async with house() as h:
        assert await prompt_of(h, "Hi", max_new_tokens=20) == Text("Hi")
        assert h.worker.requests[-1].max_tokens == 20
        assert h.worker.asked == []


async def test_what_may_not_fit_is_counted() -> None:
    async with house() as h:
        prompt = await prompt_of(h, "x" * 10, max_new_tokens=INFO.n_ctx - 11)
        assert prompt == (1, *b"x" * 10)
        refused = await h.post(
            "/generate", inputs="x" * 10, parameters={"max_new_tokens": INFO.n_ctx - 10}
        )
    assert refused.status_code == 422
    assert refused.json()["error"].endswith(
        "must be <= 64. Given: 11 `inputs` tokens and 54 `max_new_tokens`"
    )


async def test_an_answer_of_any_length_needs_room_for_one_token() -> None:
    async with house() as h:
        assert await prompt_of(h, "x" * 62) == (1, *b"x" * 62)
        assert h.worker.requests[-1].max_tokens == 100
        refused = await h.post("/generate", inputs="x" * 63)
    assert refused.status_code == 422


@pytest.mark.parametrize(
    ("truncate", "adds_bos", "kept"),
    [
        (2, False, b"ef"),
        (3, True, b"\x01ef"),
        (1, True, b"f"),
        (7, True, b"\x01abcdef"),
        (63, False, b"\x01abcdef"),
    ],
)
async def test_truncation(
    truncate: int, adds_bos: bool, kept: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house() as h:
        monkeypatch.setattr("tests.api.scripted.INFO", replace(INFO, adds_bos=adds_bos))
        assert await prompt_of(h, "abcdef", truncate=truncate) == tuple(kept)
