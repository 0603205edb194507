"""No body brings us down: what is not answered is refused in the one shape."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.ipc import Tokenized
from tests.api.openai.responses.wire import checked, whole
from tests.api.scripted import MODEL, error_of, house

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["auto", "function", "message", "resp_1", "<|im_end|>", "json_schema"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=5) | st.sampled_from(["type", "name", "id", "tools", "format"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
TYPES = st.sampled_from(
    [
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "item_reference",
        "mcp_call",
    ]
)
PART = st.fixed_dictionaries(
    {"type": st.sampled_from(["input_text", "output_text", "refusal", "input_image"])},
    optional={"text": st.text() | JSON, "refusal": JSON},
)
ITEM = st.fixed_dictionaries(
    {},
    optional={
        "type": TYPES | JSON,
        "role": st.sampled_from(["user", "assistant", "developer", "nobody"]),
        "content": st.text() | st.lists(PART, max_size=2) | JSON,
        "call_id": st.text() | JSON,
        "name": st.text() | JSON,
        "arguments": st.text() | JSON,
        "input": st.text(),
        "output": st.text() | JSON,
        "summary": JSON,
        "encrypted_content": JSON,
        "id": st.text() | JSON,
        "status": JSON,
    },
)
FIELDS = (
    "background",
    "chat_template_kwargs",
    "conversation",
    "include",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt",
    "reasoning",
    "service_tier",
    "stop",
    "store",
    "stream_options",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "truncation",
    "user",
)
BODY = st.fixed_dictionaries(
    {"model": st.just(MODEL)},
    optional={
        "input": st.text() | st.lists(ITEM, max_size=3) | JSON,
        "stream": st.booleans(),
        **dict.fromkeys(FIELDS, JSON),
    },
)


@given(JSON | BODY)
@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
async def test_any_body(body: object) -> None:
    async with house() as h:
        h.worker.answer = lambda _: Tokenized((), ())
        response = await h.client.post("/v1/responses", content=json.dumps(body))
    if response.status_code != 200:
        assert response.status_code in (400, 404), response.text
        error_of(response)
    elif response.headers["content-type"] == "application/json":
        checked(response.json())
    else:
        whole(response.content)
