"""litellm: a chat, a stream, a call, a completion, embeddings, an exception."""

import json
import os

import litellm

MODEL = f"openai/{os.environ['CORRAL_MODEL']}"
AT = {"api_base": f"{os.environ['CORRAL_URL']}/v1", "api_key": "none"}
MESSAGES = [{"role": "user", "content": "How warm is Paris?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"unit": {"type": "string", "enum": ["C", "F"]}},
            "required": ["unit"],
            "additionalProperties": False,
        },
    },
}

ask = {"model": MODEL, "messages": MESSAGES, "temperature": 0, **AT}
whole = litellm.completion(**ask, max_tokens=12)
text = whole.choices[0].message.content
assert text, whole
assert whole.usage.completion_tokens == 12
chunks = litellm.completion(
    **ask, max_tokens=12, stream=True, stream_options={"include_usage": True}
)
chunks = list(chunks)
assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
assert litellm.stream_chunk_builder(chunks).usage.completion_tokens == 12

for stream in (False, True):
    answer = litellm.completion(**ask, tools=[TOOL], tool_choice="required", stream=stream)
    if stream:
        answer = litellm.stream_chunk_builder(list(answer))
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["unit"] in ("C", "F")

continued = litellm.text_completion(
    model=f"text-completion-{MODEL}", prompt="One, two,", max_tokens=4, temperature=0, **AT
)
assert continued.choices[0].text

vectors = litellm.embedding(model=MODEL, input=["Hello", "there"], **AT)
assert len(vectors.data) == 2

try:
    litellm.completion(model="openai/nobody", messages=MESSAGES, **AT)
except litellm.NotFoundError as error:
    assert "nobody" in str(error)
else:
    raise AssertionError("an unknown model is no error")
