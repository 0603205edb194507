"""A client made from /openapi.json by a generator that knows nothing of us."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.e2e.asking import MODEL
from tests.e2e.process import ANSWER_S

SCRIPTS = {
    "chat": """
from made.api.chat import create_chat_completion
from made.models import ChatCompletion, ChatCompletionRequest, ErrorResponse

answer = create_chat_completion.sync(
    client=client,
    body=ChatCompletionRequest(
        model=model, messages=[hello], max_tokens=8, temperature=0.0, repeat_penalty=1.1
    ),
)
assert isinstance(answer, ChatCompletion), answer
assert answer.choices[0].message.content
assert answer.usage.completion_tokens <= 8

refused = create_chat_completion.sync_detailed(
    client=client, body=ChatCompletionRequest(model="nobody", messages=[hello])
)
assert refused.status_code == 404
assert isinstance(refused.parsed, ErrorResponse), refused.parsed
assert refused.parsed.error.code == "model_not_found"
""",
    "completions": """
from made.api.completions import create_completion
from made.models import Completion, CompletionRequest

for prompt in ("One, two,", ["One,", "Two,"], [1, 2]):
    body = CompletionRequest(model=model, prompt=prompt, max_tokens=4, logprobs=1)
    text = create_completion.sync(client=client, body=body)
    assert isinstance(text, Completion), text
    assert text.choices[0].logprobs.tokens
""",
    "responses": """
from made.api.responses import create_response
from made.models import ResponseObject, ResponsesRequest

answer = create_response.sync(
    client=client, body=ResponsesRequest(model=model, input_="Hi", max_output_tokens=4)
)
assert isinstance(answer, ResponseObject), answer
assert answer.usage.output_tokens <= 4
""",
    "embeddings": """
from made.api.embeddings import create_embedding
from made.models import EmbeddingList, EmbeddingRequest

vectors = create_embedding.sync(
    client=client, body=EmbeddingRequest(model=model, input_=["One", "Two"])
)
assert isinstance(vectors, EmbeddingList), vectors
assert len(vectors.data) == 2
assert abs(sum(x * x for x in vectors.data[1].embedding) - 1) < 1e-3
""",
    "models": """
from made.api.models import get_model, list_models

assert list_models.sync(client=client).data[0].id == model
assert get_model.sync(model, client=client).object_ == "model"
""",
    "admin": """
from made.api.admin import list_model_states, load_model, pin_model, plan_model
from made.models import ErrorResponse, LoadOrder, PinOrder, PlanRequest

told = load_model.sync(client=client, body=LoadOrder(model=model))
assert told.state == "ready" and told.n_slots > 0
assert pin_model.sync(client=client, body=PinOrder(model=model, pinned=False)).pinned is False
assert model in [each.id for each in list_model_states.sync(client=client).data]
plan = plan_model.sync(client=client, body=PlanRequest(model=model, ctx=512, gpu_free=[2**32]))
assert plan.auto.fits and plan.auto.n_gpu_layers == plan.n_layer + 1
assert len(plan.rows) == plan.n_layer + 2 and plan.rows[0].fits == "all"
refused = load_model.sync(client=client, body=LoadOrder(model="nobody"))
assert isinstance(refused, ErrorResponse) and refused.error.code == "model_not_found"
""",
    "tokens": """
from made.api.prompts import count_chat_tokens
from made.api.tokens import detokenize, tokenize
from made.models import Conversation, DetokenizeRequest, TokenizeMessages, TokenizePrompt

told = tokenize.sync(client=client, body=TokenizePrompt(prompt="Hello"))
assert told.count == len(told.tokens)
assert detokenize.sync(client=client, body=DetokenizeRequest(tokens=told.tokens)).prompt == "Hello"
told = tokenize.sync(client=client, body=TokenizeMessages(messages=[hello]))
counted = count_chat_tokens.sync(client=client, body=Conversation(messages=[hello]))
assert counted.input_tokens == told.count
""",
}

BEGINNING = """
from made import Client
from made.models import Message, MessageRole

model = "{model}"
client = Client(base_url="{url}", timeout={timeout})
hello = Message(role=MessageRole.USER, content="Hi")
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, url: str) -> Path:
    """The folder that the generated package lies in."""
    folder = tmp_path_factory.mktemp("client")
    document = httpx.get(f"{url}/openapi.json", timeout=ANSWER_S)
    (folder / "openapi.json").write_text(document.text)
    (folder / "config.json").write_text(json.dumps({"post_hooks": []}))
    options = {
        "--path": "openapi.json",
        "--config": "config.json",
        "--output-path": "made",
        "--meta": "none",
    }
    given = [word for option in options.items() for word in option]
    run(folder, "-m", "openapi_python_client", "generate", "--fail-on-warning", *given)
    return folder


def run(folder: Path, *arguments: str) -> None:
    """Run Python in `folder`; it must succeed."""
    done = subprocess.run(
        (sys.executable, *arguments),
        capture_output=True,
        text=True,
        timeout=ANSWER_S,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_talks_to_us(made: Path, url: str, name: str) -> None:
    beginning = BEGINNING.format(url=url, model=MODEL, timeout=ANSWER_S)
    run(made, "-c", beginning + SCRIPTS[name])
