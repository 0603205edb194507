"""The summary of a text file, streamed.

    python examples/summarise.py FILE

The whole file must fit into the model's context; the server says so if it does not. With one of
Bagel's models, set MODEL and leave `chat_template` out. CORRAL_URL is the server's address if it is
not http://127.0.0.1:8000/v1.
"""

import os
import sys
from pathlib import Path

from openai import BadRequestError, OpenAI

MODEL = "smollm2-135m-instruct"


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/summarise.py FILE")
    text = Path(sys.argv[1]).read_text(encoding="utf-8")
    url = os.environ.get("CORRAL_URL", "http://127.0.0.1:8000/v1")
    client = OpenAI(base_url=url, api_key="none")
    try:
        stream = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Summarize this text in one sentence."}],
            temperature=0,
            max_tokens=128,
            stream=True,
            # No title, no date: a document without metadata is what Bagel summarizes.
            extra_body={"documents": [{"text": text}], "chat_template": "bagel-alpaca"},
        )
    except BadRequestError as error:
        sys.exit(f"{sys.argv[1]}: {error.message}")
    for chunk in stream:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()


if __name__ == "__main__":
    main()
