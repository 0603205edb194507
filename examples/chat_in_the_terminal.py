"""A chat in the terminal: answers stream, the conversation goes on until an empty line.

    python examples/chat_in_the_terminal.py [MODEL]

CORRAL_URL is the server's address if it is not http://127.0.0.1:8000/v1.
"""

import os
import sys

from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

MODEL = sys.argv[1] if len(sys.argv) > 1 else "smollm2-135m-instruct"


def main() -> None:
    url = os.environ.get("CORRAL_URL", "http://127.0.0.1:8000/v1")
    client = OpenAI(base_url=url, api_key="none")
    messages: list[ChatCompletionMessageParam] = []
    while said := ask():
        messages.append({"role": "user", "content": said})
        stream = client.chat.completions.create(
            model=MODEL, messages=messages, max_tokens=256, stream=True
        )
        answer = ""
        for chunk in stream:
            text = chunk.choices[0].delta.content or ""
            print(text, end="", flush=True)
            answer += text
        print()
        messages.append({"role": "assistant", "content": answer})


def ask() -> str:
    """The user's next line; empty at the end of the input."""
    try:
        return input("> ").strip()
    except EOFError:
        return ""


if __name__ == "__main__":
    main()
