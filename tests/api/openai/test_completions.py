"""POST /v1/completions: what it takes and what it answers."""

from collections.abc import Sequence
from typing import Any

import pytest
from openai.types import Completion

from server.errors import InvalidRequest
from server.ipc import (
    Accepted,
    Delta,
    Echo,
    Event,
    Finished,
    GenerateRequest,
    Grammar,
    Infill,
    Text,
    TokenScore,
)
from tests.api.scripted import MODEL, error_of, events, fail, house, speak


async def test_the_whole_answer() -> None:
    async with house() as h:
        body = (await h.complete()).json()
    Completion.model_validate(body, strict=True)
    assert body["id"].startswith("cmpl-")
    assert body["object"] == "text_completion"
    assert body["choices"] == [
        {"text": "Hello world", "index": 0, "logprobs": None, "finish_reason": "stop"}
    ]
    assert body["usage"]["total_tokens"] == 10


async def test_the_chunks() -> None:
    async with house(speak("a", "b", reason="length")) as h:
        options = {"include_usage": True}
        response = await h.complete(stream=True, stream_options=options)
    *chunks, usage, done = events(response.content)
    assert done == "[DONE]"
    Completion.model_validate(usage, strict=True)
    Completion.model_validate(chunks[-1], strict=True)
    for chunk in (*chunks, usage):
        assert chunk["object"] == "text_completion"
        assert (chunk["id"], chunk["created"]) == (usage["id"], usage["created"])
    assert [chunk["choices"][0] for chunk in chunks] == [
        {"text": "a", "index": 0, "logprobs": None, "finish_reason": None},
        {"text": "b", "index": 0, "logprobs": None, "finish_reason": None},
        {"text": "", "index": 0, "logprobs": None, "finish_reason": "length"},
    ]
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Hi", [Text("Hi")]),
        ("", [Text("")]),
        (["a", "b"], [Text("a"), Text("b")]),
        ([1, 2, 99], [(1, 2, 99)]),
        ([[0, 1], [2]], [(0, 1), (2,)]),
    ],
)
async def test_prompts(prompt: object, expected: list[object]) -> None:
    async with house() as h:
        response = await h.complete(prompt=prompt)
    assert response.status_code == 200
    assert [request.prompt for request in h.worker.requests] == expected
    assert {request.prompt_param for request in h.worker.requests} == {"prompt"}


async def test_choices_are_ordered_by_prompt() -> None:
    def script(number: int, request: GenerateRequest) -> Sequence[Event]:
        return speak(f"{number}", n_prompt=5)(number, request)

    async with house(script) as h:
        body = (await h.complete(prompt=["a", "b"], n=2, seed=3)).json()
    assert [choice["text"] for choice in body["choices"]] == ["0", "1", "2", "3"]
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    asked = [(request.prompt, request.sampling.seed) for request in h.worker.requests]
    assert asked == [(Text("a"), 3), (Text("a"), 4), (Text("b"), 3), (Text("b"), 4)]
    assert body["usage"]["prompt_tokens"] == 10


@pytest.mark.parametrize(
    ("limit", "expected"), [({}, 16), ({"max_tokens": 5}, 5), ({"max_tokens": None}, 16)]
)
async def test_limits(limit: dict[str, object], expected: int) -> None:
    async with house() as h:
        await h.complete(**limit)
    assert h.worker.requests[0].max_tokens == expected


BAD_PROMPTS: list[tuple[Any, str, str]] = [
    (None, "prompt", "Field required"),
    ([], "prompt", "not empty"),
    (5, "prompt", "must be a text"),
    ({}, "prompt", "must be a text"),
    (["a", 1], "prompt", "item 1 is not a text"),
    ([1, "a"], "prompt", "item 1 is not a token id"),
    ([1, True], "prompt", "item 1 is not a token id"),
    ([1, 1.0], "prompt", "item 1 is not a token id"),
    ([[]], "prompt", "item 0 must be token ids, at least one"),
    ([[1], 2], "prompt", "item 1 must be token ids"),
    ([[1], [2, None]], "prompt", "item 1.1 is not a token id"),
    ([0, 100], "prompt.1", "token id 100, the vocabulary has 100 tokens"),
    ([-1], "prompt.0", "token id -1, the vocabulary has 100 tokens"),
    ([[1], [2, 10**30]], "prompt.1.1", "the vocabulary has 100 tokens"),
]


@pytest.mark.parametrize(("prompt", "param", "message"), BAD_PROMPTS)
async def test_bad_prompts(prompt: object, param: str, message: str) -> None:
    async with house() as h:
        response = await h.complete(prompt=prompt)
    assert response.status_code == 400
    error = error_of(response)
    assert error["param"] == param
    assert error["message"].startswith("prompt") and message in error["message"]
    assert h.worker.requests == []


@pytest.mark.parametrize(("n_prompts", "n", "status"), [(8, 16, 200), (129, 1, 400), (9, 15, 400)])
async def test_the_cap_on_choices(n_prompts: int, n: int, status: int) -> None:
    async with house() as h:
        response = await h.complete(prompt=["x"] * n_prompts, n=n)
    assert response.status_code == status
    if status == 400:
        assert "at most 128" in error_of(response)["message"]


def scored(*pieces: bytes, logprob: float = -0.5) -> tuple[TokenScore, ...]:
    return tuple(
        TokenScore(i, piece, logprob, ((i, piece, logprob), (99, b" other", -3.0)))
        for i, piece in enumerate(pieces)
    )


PROMPT = (TokenScore(3, b"Hi", None), *scored(b" you"))


def scoring(_: int, request: GenerateRequest) -> Sequence[Event]:
    """An answer of two tokens and an end, with what was asked for beside it."""
    told: list[Event] = [Accepted(0, 2)]
    wanted = request.logprobs is not None
    if request.echo:
        told.append(Echo(0, PROMPT))
    if request.max_tokens == 0:
        return [*told, Finished(0, "", 0, "length", 2, 0, 0)]
    told.append(Delta(0, " and", 1, scored(b" and") if wanted else ()))
    end = scored(b" I", b"") if wanted else ()
    return [*told, Finished(0, " I", 2, "stop", 2, 0, 3, end)]


LOGPROBS = {
    "tokens": ["Hi", " you", " and", " I", ""],
    "token_logprobs": [None, -0.5, -0.5, -0.5, -0.5],
    "top_logprobs": [
        None,
        {" you": -0.5, " other": -3.0},
        {" and": -0.5, " other": -3.0},
        {" I": -0.5, " other": -3.0},
        {"": -0.5, " other": -3.0},
    ],
    "text_offset": [0, 2, 6, 10, 12],
}


class TestLogprobs:
    @pytest.mark.parametrize("logprobs", [0, 5, 20])
    async def test_what_reaches_the_engine(self, logprobs: int) -> None:
        async with house() as h:
            await h.complete(logprobs=logprobs)
            await h.complete(logprobs=False)
            await h.complete()
        asked = [request.logprobs for request in h.worker.requests]
        assert asked == [logprobs, None, None]

    async def test_the_whole_answer(self) -> None:
        async with house(scoring) as h:
            body = (await h.complete(logprobs=2)).json()
        Completion.model_validate(body, strict=True)
        (choice,) = body["choices"]
        assert choice["text"] == " and I"
        assert choice["logprobs"] == {
            "tokens": LOGPROBS["tokens"][2:],
            "token_logprobs": LOGPROBS["token_logprobs"][2:],
            "top_logprobs": LOGPROBS["top_logprobs"][2:],
            "text_offset": [0, 4, 6],
        }

    async def test_with_the_prompt(self) -> None:
        async with house(scoring) as h:
            body = (await h.complete(prompt="Hi you", logprobs=2, echo=True)).json()
        (choice,) = body["choices"]
        assert choice["text"] == "Hi you and I"
        assert choice["logprobs"] == LOGPROBS

    @pytest.mark.parametrize("n", [1, 3])
    async def test_chunks_add_up(self, n: int) -> None:
        async with house(scoring) as h:
            asked = {"prompt": [[3, 4], [5]], "logprobs": 2, "echo": True, "n": n}
            whole = (await h.complete(**asked)).json()["choices"]
            *chunks, done = events((await h.complete(**asked, stream=True)).content)
        assert done == "[DONE]"
        folded: dict[int, Any] = {}
        for chunk in chunks:
            (choice,) = chunk["choices"]
            fold = folded.setdefault(choice["index"], {"text": "", **{key: [] for key in LOGPROBS}})
            fold["text"] += choice["text"]
            for name in LOGPROBS if choice["logprobs"] else ():
                fold[name] += choice["logprobs"][name]
        assert sorted(folded) == list(range(2 * n))
        for choice in whole:
            assert choice["logprobs"] == LOGPROBS
            fold = folded[choice["index"]]
            assert fold.pop("text") == choice["text"] == "Hi you and I"
            assert fold == LOGPROBS

    async def test_none_unless_asked_for(self) -> None:
        async with house(scoring) as h:
            body = (await h.complete(echo=True)).json()
            response = await h.complete(echo=True, stream=True)
        assert body["choices"][0]["logprobs"] is None
        for chunk in events(response.content)[:-1]:
            assert chunk["choices"][0]["logprobs"] is None


class TestEcho:
    @pytest.mark.parametrize("prompt", ["Hi you", [3, 4]])
    async def test_the_prompt_alone(self, prompt: object) -> None:
        async with house(scoring) as h:
            asked = {"prompt": prompt, "echo": True, "max_tokens": 0}
            body = (await h.complete(**asked)).json()
            first, last, _ = events((await h.complete(**asked, stream=True)).content)
        (request, _) = h.worker.requests
        assert (request.echo, request.max_tokens) == (True, 0)
        (choice,) = body["choices"]
        assert (choice["text"], choice["finish_reason"]) == ("Hi you", "length")
        assert body["usage"]["completion_tokens"] == 0
        assert first["choices"][0]["text"] == "Hi you"
        assert last["choices"][0]["finish_reason"] == "length"

    async def test_nothing_at_all(self) -> None:
        async with house(scoring) as h:
            (choice,) = (await h.complete(max_tokens=0)).json()["choices"]
        assert (choice["text"], choice["finish_reason"]) == ("", "length")

    @pytest.mark.parametrize("stream", [False, True])
    async def test_what_a_model_puts_before_a_text_is_no_part_of_it(self, stream: bool) -> None:
        tokens = (TokenScore(1, b"<s>", None), *scored(b" Hi", b" you"))

        def script(_: int, __: GenerateRequest) -> Sequence[Event]:
            end = Finished(0, "!", 1, "stop", 3, 0, 1, scored(b"!"))
            return [Accepted(0, 3), Echo(0, tokens), end]

        async with house(script) as h:
            response = await h.complete(prompt="Hi you", echo=True, logprobs=0, stream=stream)
        told = events(response.content)[:-1] if stream else [response.json()]
        choices = [answer["choices"][0] for answer in told]
        assert "".join(choice["text"] for choice in choices) == "Hi you!"
        offsets = [choice["logprobs"]["text_offset"] for choice in choices if choice["logprobs"]]
        assert [offset for some in offsets for offset in some] == [0, 0, 2, 6]

    async def test_a_text_is_echoed_as_it_was_sent(self) -> None:
        async with house(scoring) as h:
            (choice,) = (await h.complete(prompt="<s>Hi you", echo=True)).json()["choices"]
        assert choice["text"] == "<s>Hi you and I"


class TestBestOf:
    @staticmethod
    def ranked(number: int, request: GenerateRequest) -> Sequence[Event]:
        """The second and the last of four are the likeliest; the third says most."""
        logprob = (-3.0, -0.5, -2.0, -1.0)[number % 4]
        scores = scored(*[b"x"] * (9 if number % 4 == 2 else 1), logprob=logprob)
        end = scores if request.logprobs is not None else ()
        return [Accepted(0, 2), Finished(0, str(number), 1, "stop", 2, 0, 1, end)]

    @pytest.mark.parametrize("logprobs", [None, 1])
    async def test_the_likeliest_are_told(self, logprobs: int | None) -> None:
        async with house(self.ranked) as h:
            asked = {"prompt": ["a", "b"], "n": 2, "best_of": 4, "seed": 7, "logprobs": logprobs}
            body = (await h.complete(**asked)).json()
        assert [choice["text"] for choice in body["choices"]] == ["1", "3", "5", "7"]
        assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
        assert all((c["logprobs"] is None) == (logprobs is None) for c in body["choices"])
        assert [r.sampling.seed for r in h.worker.requests] == [7, 8, 9, 10] * 2
        assert {request.logprobs for request in h.worker.requests} == {logprobs or 0}
        assert body["usage"]["completion_tokens"] == 8
        assert body["usage"]["prompt_tokens"] == 4

    async def test_all_are_told_in_their_order(self) -> None:
        async with house(self.ranked) as h:
            body = (await h.complete(n=4, best_of=4)).json()
        assert [choice["text"] for choice in body["choices"]] == ["0", "1", "2", "3"]
        assert {request.logprobs for request in h.worker.requests} == {None}


class TestSuffix:
    async def test_what_is_missing_in_between(self) -> None:
        async with house() as h:
            await h.complete(prompt=["a", "b"], suffix="z")
            await h.complete(prompt="a", suffix="")
        asked = [request.prompt for request in h.worker.requests]
        assert asked == [Infill("a", "z"), Infill("b", "z"), Text("a")]

    async def test_a_model_that_cannot(self) -> None:
        async with house(fail(InvalidRequest("suffix: no tokens for it", "suffix"))) as h:
            response = await h.complete(suffix="z")
        assert response.status_code == 400
        assert error_of(response)["param"] == "suffix"


BAD_VALUES: list[tuple[dict[str, Any], str, str]] = [
    ({"max_tokens": -2}, "max_tokens", "got -2"),
    ({"logprobs": -1}, "logprobs", "got -1"),
    ({"logprobs": 21}, "logprobs", "less than or equal to 20, got 21"),
    ({"logprobs": True}, "logprobs", "must be the number of best tokens"),
    ({"best_of": 0}, "best_of", "got 0"),
    ({"best_of": 17}, "best_of", "got 17"),
    ({"n": 3, "best_of": 2}, "best_of", "at least n = 3, got 2"),
    ({"stream": True, "best_of": 2}, "best_of", "only allowed when stream is false"),
    ({"prompt": ["x"] * 33, "best_of": 4}, "prompt", "33 prompts x 4 = 132 choices"),
    ({"suffix": "z", "prompt": [1, 2]}, "suffix", "only possible with texts"),
    ({"suffix": "z", "echo": True}, "echo", "not possible with a suffix"),
    ({"suffix": 5}, "suffix", "got 5"),
    ({"echo": "loud"}, "echo", 'got "loud"'),
    ({"response_format": {"type": "xml"}}, "response_format.type", 'got "xml"'),
    ({"regex": "a", "lark": "b"}, "lark", "only one field"),
]


@pytest.mark.parametrize(("body", "param", "message"), BAD_VALUES)
async def test_bad_values(body: dict[str, Any], param: str, message: str) -> None:
    async with house() as h:
        response = await h.complete(**body)
    assert response.status_code == 400
    error = error_of(response)
    assert error["param"] == param
    assert message in error["message"] or error["message"].startswith(message)
    assert h.worker.requests == []


async def test_the_shape_of_the_answer() -> None:
    async with house() as h:
        response = await h.complete(regex="a+")
    assert "x-corral-ignored" not in response.headers
    assert h.worker.requests[0].grammar == Grammar("regex", "a+", "regex")


async def test_what_is_not_served_is_reported() -> None:
    async with house() as h:
        response = await h.complete(tools=[1], top_logprobs=1, made_up=2)
    assert response.headers["x-corral-ignored"] == "tools, top_logprobs, made_up"


async def test_a_full_queue() -> None:
    async with house(lambda _, __: []) as h:
        h.worker.capacity = 2
        response = await h.complete(prompt=["a", "b", "c"])
    assert response.status_code == 429
    assert response.headers["retry-after"] == "2"
    assert error_of(response)["code"] == "rate_limit_exceeded"
    assert h.worker.cancelled == [0, 1]


async def test_the_model_is_named_as_configured() -> None:
    async with house() as h:
        assert (await h.complete()).json()["model"] == MODEL
