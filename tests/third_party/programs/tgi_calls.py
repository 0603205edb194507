"""TGI's clients: LangChain's endpoint and its chat, huggingface_hub's clients."""

import asyncio
import os

from huggingface_hub import AsyncInferenceClient, InferenceClient
from langchain_core.prompts import PromptTemplate
from langchain_huggingface import ChatHuggingFace, HuggingFaceEndpoint

URL = os.environ["CORRAL_URL"]
PROMPT = "The capital of France is"

settings = {"max_new_tokens": 12, "top_p": None, "typical_p": None, "temperature": None}
llm = HuggingFaceEndpoint(endpoint_url=URL, huggingfacehub_api_token="none", **settings)
whole = llm.invoke(PROMPT)
assert whole and not whole.startswith(PROMPT), whole
assert "".join(llm.stream(PROMPT)) == whole
chain = PromptTemplate.from_template("The capital of {country} is") | llm
assert chain.invoke({"country": "France"}) == whole


async def beside_others() -> None:
    assert await llm.ainvoke(PROMPT) == whole
    assert "".join([piece async for piece in llm.astream(PROMPT)]) == whole
    client = AsyncInferenceClient(URL)
    pieces = await client.text_generation(PROMPT, max_new_tokens=12, stream=True)
    assert "".join([piece async for piece in pieces]) == whole


asyncio.run(beside_others())

word = whole.split()[1]
stopped = llm.invoke(PROMPT, stop=[word])
assert stopped == whole[: whole.index(word)], (stopped, whole)
assert "".join(llm.stream(PROMPT, stop=[word])) == stopped

drawn = HuggingFaceEndpoint(
    endpoint_url=URL,
    huggingfacehub_api_token="none",
    max_new_tokens=12,
    do_sample=True,
    repetition_penalty=1.15,
    temperature=0.7,
    top_k=20,
    top_p=0.9,
    seed=7,
)
assert drawn.invoke(PROMPT) == drawn.invoke(PROMPT)

# It names no model, and passes on no temperature of 0.
chat = ChatHuggingFace(llm=llm, model_id=os.environ["CORRAL_MODEL"], max_tokens=8)
answer = chat.invoke("Name a colour.")
assert answer.content and answer.response_metadata["token_usage"]["completion_tokens"] <= 8, answer
pieces = [chunk.content for chunk in chat.stream("Name a colour.")]
assert len([piece for piece in pieces if piece]) > 1, pieces

client = InferenceClient(URL)
plain = client.text_generation(PROMPT, max_new_tokens=12, return_full_text=False)
assert plain == whole
told = client.text_generation(PROMPT, max_new_tokens=4, details=True)
assert told.details.generated_tokens == 4
