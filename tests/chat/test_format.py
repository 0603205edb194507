"""Which template a model gets, and what it is given."""

from dataclasses import replace
from pathlib import Path

import pytest

from server.chat.format import PACKAGE, chat_format
from server.errors import InvalidRequest
from server.ipc import Text
from tests.api.scripted import INFO

HI = [{"role": "user", "content": "Hi"}]
OPEN = [*HI, {"role": "assistant", "content": "Well"}]


def test_chatml_by_name() -> None:
    messages = [{"role": "system", "content": "Be short."}, *HI]
    assert chat_format("chatml", INFO).prompt(messages) == Text(
        "<|im_start|>system\nBe short.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_chatml_has_no_system_prompt_of_its_own_and_takes_null_content() -> None:
    prompt = chat_format("chatml", INFO).prompt(
        [{"role": "assistant", "content": None}], add_generation_prompt=False
    )
    assert prompt.text == "<|im_start|>assistant\n<|im_end|>\n"


def test_every_template_of_the_folder_renders() -> None:
    folder = PACKAGE.parent / "templates"
    names = [path.stem for path in folder.glob("*.jinja")]
    assert "chatml" in names
    for name in names:
        assert "Hi" in chat_format(name, INFO).prompt(HI).text


def test_the_configured_template_goes_before_the_ggufs(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("mine: {{ messages[0].content }}")
    info = replace(INFO, template="GGUF: {{ messages[0].content }}")
    assert chat_format(str(path), info).prompt(HI).text == "mine: Hi"
    assert chat_format(None, info).prompt(HI).text == "GGUF: Hi"


@pytest.mark.parametrize("template", [None, ""])
def test_no_template_at_all(template: str | None) -> None:
    with pytest.raises(InvalidRequest, match="set `template`"):
        chat_format(None, replace(INFO, template=template))


@pytest.mark.parametrize("name", ["missing", "../config", "missing.jinja"])
def test_a_configured_template_that_does_not_exist(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{name}.*does not exist: looked at "):
        chat_format(name, INFO)


def test_developer_is_system_unless_the_template_knows_it() -> None:
    messages = [{"role": "developer", "content": "x"}]
    source = "{{ messages[0].role }}"
    assert chat_format(None, replace(INFO, template=source)).prompt(messages).text == "system"
    knows = source + "{# developer #}"
    assert chat_format(None, replace(INFO, template=knows)).prompt(messages).text == "developer"


def test_the_variables_of_transformers() -> None:
    source = (
        "{{ bos_token }}{{ eos_token }}{{ add_generation_prompt }}"
        "{{ tools is none }}{{ documents is none }}{{ thinking }}"
    )
    chat = chat_format(None, replace(INFO, template=source))
    assert chat.prompt(HI, {"thinking": "on"}).text == "<s><|im_end|>TrueTrueTrueon"


def test_our_variables_are_not_the_clients() -> None:
    with pytest.raises(InvalidRequest, match="set by the server") as caught:
        chat_format("chatml", INFO).prompt(HI, {"messages": []})
    assert caught.value.param == "chat_template_kwargs.messages"


def test_clients_control_text_is_literal() -> None:
    prompt = chat_format("chatml", INFO).prompt([{"role": "user", "content": "<|im_end|>"}])
    assert prompt.literal == ((17, 27),)


def test_continue_final_message() -> None:
    prompt = chat_format("chatml", INFO).prompt(
        OPEN, add_generation_prompt=False, continue_final_message=True
    )
    assert prompt.text.endswith("<|im_start|>assistant\nWell")


@pytest.mark.parametrize(
    ("messages", "generation", "reason"),
    [
        (OPEN, True, "exclude each other"),
        (HI, False, "must be an assistant's"),
        ([{"role": "assistant", "content": None}], False, "must be an assistant's"),
    ],
)
def test_what_cannot_be_continued(
    messages: list[dict[str, object]], generation: bool, reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        chat_format("chatml", INFO).prompt(messages, None, generation, True)
    assert caught.value.param == "continue_final_message"
