"""LangChain: a chat that streams, an answer of a given shape, many questions at a time.

    pip install langchain-openai
    python examples/langchain_chat.py [MODEL]

CORRAL_URL is the server's address if it is not http://127.0.0.1:8000/v1.
"""

import os
import sys

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

MODEL = sys.argv[1] if len(sys.argv) > 1 else "smollm2-135m-instruct"


class Animal(BaseModel):
    """What is known of an animal."""

    name: str = Field(max_length=20)
    legs: int = Field(ge=0, le=100)


def main() -> None:
    llm = ChatOpenAI(
        model=MODEL,
        base_url=os.environ.get("CORRAL_URL", "http://127.0.0.1:8000/v1"),
        api_key="none",
        temperature=0,
        max_tokens=64,
    )
    converse(llm, "What is a horse?", "And what does it eat?")
    animal = llm.with_structured_output(Animal).invoke("Describe a horse.")
    print(f"{animal.name}: {animal.legs} legs")
    for country, answer in capitals(llm, "France", "Italy", "Spain"):
        print(f"{country}: {answer}")


def converse(llm: ChatOpenAI, *questions: str) -> None:
    """Ask one after another in one conversation, and print the answers as they come."""
    messages = [SystemMessage("Answer in one sentence.")]
    for question in questions:
        messages.append(HumanMessage(question))
        answer = ""
        for chunk in llm.stream(messages):
            print(chunk.content, end="", flush=True)
            answer += chunk.content
        print()
        messages.append(AIMessage(answer))


def capitals(llm: ChatOpenAI, *countries: str) -> list[tuple[str, str]]:
    """Ask for all at the same time."""
    prompt = ChatPromptTemplate.from_template("Name the capital of {country} in one word.")
    answers = (prompt | llm).batch([{"country": country} for country in countries])
    return [(country, answer.content) for country, answer in zip(countries, answers, strict=True)]


if __name__ == "__main__":
    main()
