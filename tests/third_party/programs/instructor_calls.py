"""instructor: an answer of a type, by each way to ask for one."""

import os

import instructor
from openai import OpenAI
from pydantic import BaseModel, Field


class Person(BaseModel):
    """Somebody."""

    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=120)


sdk = OpenAI(base_url=f"{os.environ['CORRAL_URL']}/v1", api_key="none")
for mode in (
    instructor.Mode.TOOLS,
    instructor.Mode.TOOLS_STRICT,
    instructor.Mode.JSON_SCHEMA,
):
    client = instructor.from_openai(sdk, mode=mode)
    person = client.chat.completions.create(
        model=os.environ["CORRAL_MODEL"],
        response_model=Person,
        messages=[{"role": "user", "content": "Ann is 7 years old."}],
        temperature=0,
        max_retries=0,
    )
    assert isinstance(person, Person), mode
    assert 0 <= person.age <= 120
