"""What an answer must look like on the wire: exact keys, framing, and the SDK's own types."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from openai import BaseModel
from openai.types import Completion, CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk

Json = dict[str, Any]
M = TypeVar("M", bound=BaseModel)

HEAD = {"id", "object", "created", "model", "system_fingerprint", "choices"}
USAGE = {
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "prompt_tokens_details",
    "completion_tokens_details",
}
CHAT_CHOICE = {"index", "message", "logprobs", "finish_reason"}
CHAT_DELTA = {"index", "delta", "logprobs", "finish_reason"}
TEXT_CHOICE = {"index", "text", "logprobs", "finish_reason"}
REASONS = {"stop", "length"}
CHAT_REASONS = {*REASONS, "tool_calls", "function_call"}
MESSAGE = {"role", "content", "refusal"}
TYPES = {"invalid_request_error", "rate_limit_error", "conflict_error", "server_error"}
MESSAGE_PARTS = {"tool_calls", "function_call", "reasoning_content", "reasoning"}
"""Of a message, whole or in chunks, where it has them."""
DONE = b"data: [DONE]\n\n"


@dataclass
class Fold:
    """A stream put together again, by the index of the choice."""

    id: str
    model: str
    chunks: int = 0
    texts: dict[int, str] = field(default_factory=dict[int, str])
    reasons: dict[int, str] = field(default_factory=dict[int, str])
    usage: CompletionUsage | None = None

    @property
    def text(self) -> str:
        """The text of the only choice."""
        (text,) = self.texts.values()
        return text

    @property
    def reason(self) -> str:
        """The finish reason of the only choice."""
        (reason,) = self.reasons.values()
        return reason

    @property
    def counted(self) -> CompletionUsage:
        """The usage, which must have been sent."""
        assert self.usage is not None
        return self.usage


def whole_chat(raw: str) -> ChatCompletion:
    """A whole chat answer, checked."""
    body = _object(raw)
    _has(body, {*HEAD, "usage"})
    for choice in body["choices"]:
        _has(choice, CHAT_CHOICE)
        _has(choice["message"], MESSAGE | (choice["message"].keys() & MESSAGE_PARTS))
        assert choice["finish_reason"] in CHAT_REASONS
    _check_usage(body["usage"])
    answer = _as(ChatCompletion, body)
    assert answer.id.startswith("chatcmpl-")
    _in_order(body["choices"])
    return answer


def whole_completion(raw: str) -> Completion:
    """A whole completion, checked."""
    body = _object(raw)
    _has(body, {*HEAD, "usage"})
    for choice in body["choices"]:
        _has(choice, TEXT_CHOICE)
        assert choice["finish_reason"] in REASONS
    _check_usage(body["usage"])
    answer = _as(Completion, body)
    assert answer.id.startswith("cmpl-")
    _in_order(body["choices"])
    return answer


def fold_chat(raw: bytes, include_usage: bool) -> Fold:
    """A complete chat stream, checked chunk by chunk."""
    chunks = _chunks(raw, include_usage)
    fold = _begin(chunks, "chatcmpl-")
    for chunk in chunks:
        _as(ChatCompletionChunk, chunk)
        assert chunk["object"] == "chat.completion.chunk"
        for choice in chunk["choices"]:
            _has(choice, CHAT_DELTA)
            index, delta = choice["index"], choice["delta"]
            if index not in fold.texts:
                assert index == len(fold.texts), "choices open in order"
                assert delta == {"role": "assistant", "content": "", "refusal": None}
            elif choice["finish_reason"] is not None:
                assert delta == {}
            else:
                _has(delta, {"content"})
                assert delta["content"], "an empty delta"
            _take(fold, choice, delta.get("content", ""))
    return _end(fold, chunks, include_usage)


def fold_completion(raw: bytes, include_usage: bool) -> Fold:
    """A complete completion stream, checked chunk by chunk."""
    chunks = _chunks(raw, include_usage)
    fold = _begin(chunks, "cmpl-")
    for chunk in chunks:
        # The SDK has no type for a chunk whose choices go on: its reasons are never null.
        ended = {**chunk, "choices": [{**c, "finish_reason": "stop"} for c in chunk["choices"]]}
        _as(Completion, ended)
        for choice in chunk["choices"]:
            _has(choice, TEXT_CHOICE)
            _take(fold, choice, choice["text"])
    return _end(fold, chunks, include_usage)


def events(raw: bytes) -> list[str]:
    """The data of each event of a stream; comments left out."""
    assert b"\r" not in raw, "lines end in LF"
    assert raw.endswith(b"\n\n"), f"cut off: {raw[-80:]!r}"
    blocks = raw.decode().removesuffix("\n\n").split("\n\n")
    for block in blocks:
        assert block.startswith(("data: ", ": ")), block
        assert "\n" not in block, block
    return [block.removeprefix("data: ") for block in blocks if block.startswith("data: ")]


def error_of(raw: str | bytes) -> Json:
    """The error of an error body, of exactly the one shape."""
    body = _object(raw)
    _has(body, {"error"})
    error = cast("Json", body["error"])
    _has(error, {"message", "type", "param", "code"})
    assert isinstance(error["message"], str)
    assert error["message"]
    assert error["type"] in TYPES
    assert error["param"] is None or isinstance(error["param"], str)
    assert error["code"] is None or isinstance(error["code"], str)
    return error


def _chunks(raw: bytes, include_usage: bool) -> list[Json]:
    """The chunks before the only [DONE], with the keys that all have in common checked."""
    assert raw.endswith(DONE)
    *datas, done = events(raw)
    assert done == "[DONE]"
    assert "[DONE]" not in datas
    chunks = [_object(data) for data in datas]
    for chunk in chunks:
        _has(chunk, {*HEAD, "usage"} if include_usage else HEAD)
        for key in HEAD - {"choices"}:
            assert chunk[key] == chunks[0][key], f"{key} changes within a stream"
    return chunks


def _begin(chunks: Sequence[Json], prefix: str) -> Fold:
    assert chunks[0]["id"].startswith(prefix)
    assert isinstance(chunks[0]["created"], int)
    return Fold(chunks[0]["id"], chunks[0]["model"], len(chunks))


def _take(fold: Fold, choice: Json, text: str) -> None:
    index, reason = choice["index"], choice["finish_reason"]
    assert index not in fold.reasons, "a chunk after the end of its choice"
    fold.texts[index] = fold.texts.get(index, "") + text
    if reason is not None:
        assert reason in REASONS
        fold.reasons[index] = reason


def _end(fold: Fold, chunks: Sequence[Json], include_usage: bool) -> Fold:
    assert fold.reasons.keys() == fold.texts.keys(), "a choice without its end"
    if include_usage:
        *others, last = chunks
        assert all(chunk["usage"] is None and chunk["choices"] for chunk in others)
        assert last["choices"] == []
        _check_usage(last["usage"])
        fold.usage = _as(CompletionUsage, last["usage"])
    else:
        assert all(chunk["choices"] for chunk in chunks)
    return fold


def _check_usage(usage: Json) -> None:
    _has(usage, USAGE)
    _has(usage["prompt_tokens_details"], {"cached_tokens", "audio_tokens"})
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 0 <= usage["prompt_tokens_details"]["cached_tokens"] < usage["prompt_tokens"]


def _in_order(choices: Sequence[Json]) -> None:
    assert [choice["index"] for choice in choices] == list(range(len(choices)))


def _object(raw: str | bytes) -> Json:
    body: object = json.loads(raw)
    assert isinstance(body, dict), body
    return cast("Json", body)


def _has(value: Mapping[str, object], keys: Collection[str]) -> None:
    """Exactly these keys."""
    assert value.keys() == set(keys), value


def _as(model: type[M], value: Json) -> M:
    """`value` as the SDK's type, nothing of it lost or unknown."""
    checked = model.model_validate(value)
    assert not checked.model_extra, checked.model_extra
    return checked
