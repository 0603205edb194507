"""`corral template`: which template, why, and how it looks."""

from pathlib import Path

import gguf
import pytest
from typer.testing import CliRunner, Result

from server.command_line import app
from tests.gguf_files import write_gguf


def corral(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["template", *arguments])


@pytest.fixture
def bagel(tmp_path: Path) -> Path:
    """A header like that of a Bagel without a template."""
    path = tmp_path / "bagel.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("jondurbin_bagel-dpo-8x7b-v0.2")
    writer.add_token_list(["<unk>", "<s>", "</s>"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_by_family(bagel: Path) -> None:
    result = corral(str(bagel))
    assert result.exit_code == 0
    assert result.stdout == (
        "template  llama-2\n"
        "chosen by family: the GGUF has none, and models of this family are known by name "
        "'jondurbin_bagel-dpo-8x7b-v0.2'\n"
        "answers end with '</s>'\n"
        "stop strings '</s>', '[INST]'\n"
        "\n"
        "<s>[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{question} [/INST] {answer} </s>"
        "<s>[INST] {question} [/INST]\n"
    )


def test_as_a_request_asks(bagel: Path) -> None:
    result = corral(str(bagel), "--chat-template", "alpaca")
    assert "template  alpaca\nchosen by request" in result.stdout
    assert "### Instruction:\n{system}\n{question}\n" in result.stdout


def test_of_the_configuration(bagel: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"models: {{b: {{path: {bagel}, template: vicuna}}}}")
    result = corral("b", "--config", str(config))
    assert "template  vicuna\nchosen by configuration" in result.stdout
    missing = corral("c", "--config", str(config))
    assert missing.exit_code == 1
    assert "'c' does not exist" in missing.stderr


def test_of_the_gguf(model_path: Path) -> None:
    result = corral(str(model_path))
    assert "none of templates/\nchosen by GGUF: the GGUF's own\n" in result.stdout
    assert "answers end with '<|im_end|>'\n" in result.stdout


def test_a_template_without_system_prompts(tmp_path: Path) -> None:
    source = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "{% for m in messages %}{{ m.content }};{% endfor %}"
    )
    path = write_gguf(
        tmp_path / "m.gguf",
        tokenizer__chat_template=source,
        tokenizer__chat_template__tool_use="tools",
    )
    result = corral(str(path))
    assert "with tools, the GGUF's own template for them is used" in result.stdout
    assert result.stdout.endswith("\n{question};{answer};{question};\n")


def test_none_is_told(tmp_path: Path) -> None:
    result = corral(str(write_gguf(tmp_path / "m.gguf")))
    assert result.exit_code == 1
    assert "carries no chat template" in result.stderr
