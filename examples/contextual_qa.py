"""A question about documents, answered from them.

    python examples/contextual_qa.py [QUESTION]

Bagel was trained to answer so: with one of its models, set MODEL and leave `chat_template` out. The
small model that comes with the server was not, and gets it right only sometimes.
CORRAL_URL is the server's address if it is not http://127.0.0.1:8000/v1.
"""

import os
import sys

from openai import OpenAI

MODEL = "smollm2-135m-instruct"
DOCUMENTS = [
    {
        "title": "Opening hours",
        "url": "https://library.example/hours",
        "text": "The library is open from 9 to 18 on weekdays, and closed on Sundays.",
    },
    {
        "title": "Lending",
        "url": "https://library.example/lending",
        "text": "Books are lent for four weeks. Films are lent for one week.",
    },
]


def main() -> None:
    question = sys.argv[1] if len(sys.argv) > 1 else "When is the library open?"
    url = os.environ.get("CORRAL_URL", "http://127.0.0.1:8000/v1")
    client = OpenAI(base_url=url, api_key="none")
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=128,
        extra_body={"documents": DOCUMENTS, "chat_template": "bagel-alpaca"},
    )
    print(answer.choices[0].message.content)


if __name__ == "__main__":
    main()
