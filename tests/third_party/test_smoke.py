"""Libraries and programs that people use with OpenAI's server, used with ours."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.e2e.asking import MODEL
from tests.third_party.running import python, run


@pytest.mark.parametrize(
    "program", ["litellm_calls", "instructor_calls", "pydantic_ai_calls", "tgi_calls"]
)
def test_libraries(program: str, environ: Mapping[str, str], tmp_path: Path) -> None:
    # litellm would look for a newer list of prices.
    local = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    run([python(), f"{program}.py"], tmp_path, {**environ, **local})


def test_llm(url: str, tmp_path: Path) -> None:
    """The command `llm`, with a file of extra models as its documentation shows it."""
    model = {"model_id": "corral", "model_name": MODEL, "api_base": f"{url}/v1"}
    models = [{**model, "supports_schema": True, "supports_tools": True}]
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(models))
    settings = {"LLM_USER_PATH": str(tmp_path)}

    def llm(*arguments: str) -> str:
        command = [python(), "-m", "llm", "-m", "corral", "-o", "temperature", "0", *arguments]
        return run(command, tmp_path, settings)

    streamed = llm("-o", "max_tokens", "12", "Name a colour.")
    assert streamed.strip()
    assert llm("-o", "max_tokens", "12", "--no-stream", "Name a colour.") == streamed
    person = json.loads(llm("--schema", "name str, age int", "Ann is 7 years old."))
    assert person.keys() == {"name", "age"}
    assert isinstance(person["age"], int)
