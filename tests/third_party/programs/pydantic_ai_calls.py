"""pydantic-ai: a typed answer by a tool and by a schema, a stream, both APIs of OpenAI's."""

import asyncio
import os

from pydantic import BaseModel, Field
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider


class Person(BaseModel):
    """Somebody."""

    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=120)


async def main() -> None:
    provider = OpenAIProvider(base_url=f"{os.environ['CORRAL_URL']}/v1", api_key="none")
    for kind in (OpenAIChatModel, OpenAIResponsesModel):
        model = kind(os.environ["CORRAL_MODEL"], provider=provider)
        settings = {"temperature": 0, "max_tokens": 200}
        for output in (ToolOutput(Person), NativeOutput(Person)):
            agent = Agent(model, output_type=output, model_settings=settings)
            done = await agent.run("Ann is 7 years old.")
            assert isinstance(done.output, Person), (kind, output, done)
            assert done.usage.output_tokens > 0
        agent = Agent(model, model_settings={**settings, "max_tokens": 12})
        async with agent.run_stream("Name a colour.") as run:
            pieces = [piece async for piece in run.stream_text(delta=True, debounce_by=None)]
        assert len(pieces) > 1, (kind, pieces)


asyncio.run(main())
