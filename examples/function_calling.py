"""A function of this program, called by the model, whose result it then puts into words.

    python examples/function_calling.py

CORRAL_URL is the server's address if it is not http://127.0.0.1:8000/v1.
"""

import json
import os
from pathlib import Path

from openai import OpenAI
from openai.types.chat import (
    ChatCompletionMessageFunctionToolCallParam,
    ChatCompletionMessageParam,
    ChatCompletionToolParam,
)

MODEL = "smollm2-135m-instruct"
WORD = {"type": "string", "minLength": 1, "maxLength": 30, "description": "The word"}
TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "count_word",
        "description": "Count how often a word is in this program's source.",
        "parameters": {
            "type": "object",
            "properties": {"word": WORD},
            "required": ["word"],
            "additionalProperties": False,
        },
    },
}


def count_word(word: str) -> int:
    return Path(__file__).read_text(encoding="utf-8").count(word)


def main() -> None:
    url = os.environ.get("CORRAL_URL", "http://127.0.0.1:8000/v1")
    chat = OpenAI(base_url=url, api_key="none").chat.completions
    said: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": 'How often is the word "model" in the source?'}
    ]
    # Enforced, for small models. With "auto" the model decides, and there may be no call.
    called = chat.create(
        model=MODEL,
        messages=said,
        tools=[TOOL],
        tool_choice="required",
        temperature=0,
        parallel_tool_calls=False,
    )
    for call in called.choices[0].message.tool_calls or []:
        assert call.type == "function"
        name, arguments = call.function.name, call.function.arguments
        result = count_word(json.loads(arguments)["word"])
        print(f"{name}({arguments}) = {result}")
        made: ChatCompletionMessageFunctionToolCallParam = {
            "id": call.id,
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        said.append({"role": "assistant", "tool_calls": [made]})
        said.append({"role": "tool", "tool_call_id": call.id, "content": str(result)})
    answer = chat.create(model=MODEL, messages=said, temperature=0, max_tokens=64)
    print(answer.choices[0].message.content)


if __name__ == "__main__":
    main()
