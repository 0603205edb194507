"""A chat with whom you like, through LangChain, and what it amounted to.

    pip install langchain-openai
    python examples/langchain_chat.py ["an old sea captain"]

Answers stream; an empty line ends the chat, which is then filed under a title and a mood.
CORRAL_URL is the server's address if it is not http://127.0.0.1:8000/v1.
"""

import os
import sys
from typing import Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

MODEL = "smollm2-135m-instruct"


class Entry(BaseModel):
    """A chat, as a diary has it."""

    title: str = Field(min_length=1, max_length=40)
    mood: Literal["merry", "gloomy", "stormy"]


def main() -> None:
    who = sys.argv[1] if len(sys.argv) > 1 else "an old sea captain"
    url = os.environ.get("CORRAL_URL", "http://127.0.0.1:8000/v1")
    model = ChatOpenAI(model=MODEL, base_url=url, api_key="none")
    system = "You are {who}. Stay in character, and answer in one or two sentences."
    talk = ChatPromptTemplate([("system", system), ("placeholder", "{chat}")])
    answers = talk | model.bind(max_tokens=128) | StrOutputParser()
    chat: list[BaseMessage] = []
    while said := ask():
        chat.append(HumanMessage(said))
        answer = ""
        for text in answers.stream({"who": who, "chat": chat}):
            print(text, end="", flush=True)
            answer += text
        print()
        chat.append(AIMessage(answer))
    if chat:
        request = talk + "Give our chat a title, and say in what mood you were."
        # The server makes sure that it is an entry, whatever the model thinks of that.
        entries = request | model.with_structured_output(Entry)
        entry = entries.invoke({"who": who, "chat": chat})
        print(f"\n{entry.title} ({entry.mood})")


def ask() -> str:
    """The user's next line; empty at the end of the input."""
    try:
        return input("> ").strip()
    except EOFError:
        return ""


if __name__ == "__main__":
    main()
