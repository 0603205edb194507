"""Who chooses the template, in which order; what stands after answers."""

from pathlib import Path

import pytest

from server.chat.choice import Known, choose, end_marker, end_warning, is_jinja, recognised
from server.chat.template import compile_template
from server.errors import InvalidRequest

NONE = Known(None, None, None, ("some-model",), "llama")
OWN = NONE._replace(template="own {{ messages[0].content }}")
BAGEL = NONE._replace(names=("jondurbin_bagel-dpo-8x7b-v0.2", "bagel"))


class TestOrder:
    def test_the_request_comes_first(self) -> None:
        choice = choose(OWN, "chatml", "alpaca")
        assert (choice.name, choice.origin) == ("alpaca", "request")
        assert "### Instruction:" in choice.source

    def test_a_template_of_the_requests_own(self) -> None:
        choice = choose(OWN, "chatml", "{{ messages }}")
        assert choice[:2] == ("{{ messages }}", "request")
        assert choice.stops == ()

    def test_then_the_configuration(self) -> None:
        choice = choose(OWN, "vicuna")
        assert (choice.name, choice.origin) == ("vicuna", "configuration")

    def test_then_the_gguf(self) -> None:
        choice = choose(BAGEL._replace(template="x"))
        assert (choice.source, choice.name, choice.origin) == ("x", None, "GGUF")

    def test_then_the_family(self) -> None:
        choice = choose(BAGEL)
        assert (choice.name, choice.origin) == ("llama-2", "family")
        assert "name 'jondurbin_bagel-dpo-8x7b-v0.2'" in choice.reason

    def test_never_a_guess(self) -> None:
        with pytest.raises(InvalidRequest, match=r"'some-model'.*llama.*set `template`") as caught:
            choose(NONE)
        assert "llama-2, llama-3" in caught.value.message

    def test_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.jinja"
        path.write_text("mine")
        choice = choose(OWN, str(path))
        assert (choice.source, choice.name) == ("mine", None)


class TestTools:
    BOTH = Known("plain", "for tools", None, ("m",), "llama")
    ALL = BOTH._replace(document_template="for documents")

    def test_the_template_for_tools(self) -> None:
        assert choose(self.BOTH, tools=True).source == "for tools"
        assert choose(self.BOTH).source == "plain"

    def test_the_template_for_documents(self) -> None:
        assert choose(self.ALL, documents=True).source == "for documents"
        assert choose(self.ALL, tools=True, documents=True).source == "for tools"
        assert choose(self.ALL).source == "plain"
        assert choose(self.BOTH, documents=True).source == "plain"

    def test_the_only_template(self) -> None:
        only = NONE._replace(document_template="for documents")
        assert choose(only).source == "for documents"
        assert choose(self.BOTH._replace(template=None)).source == "for tools"

    def test_others_come_first(self) -> None:
        assert choose(self.BOTH, "chatml", tools=True).origin == "configuration"


@pytest.mark.parametrize(
    "name", ["missing", "..", "../config", "/etc/passwd", "chatml.jinja", ".", "CHATML"]
)
def test_a_request_can_name_no_file(name: str) -> None:
    if is_jinja(name):
        assert choose(OWN, None, name).source == name
        return
    with pytest.raises(InvalidRequest, match="there is no template") as caught:
        choose(OWN, None, name)
    assert caught.value.param == "chat_template"


class TestRecognised:
    def test_by_what_it_writes(self) -> None:
        source = (
            "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] +"
            " '<|im_end|>' + '\\n' }}{% endfor %}"
        )
        choice = choose(NONE._replace(template=source))
        found = recognised(choice, compile_template(source), "<s>", "</s>")
        assert (found.name, found.origin) == ("chatml", "GGUF")
        assert "<|im_end|>" in found.stops

    def test_nothing_is_like_it(self) -> None:
        choice = choose(OWN)
        assert recognised(choice, compile_template(choice.source), "<s>", "</s>") is choice

    def test_a_template_that_refuses(self) -> None:
        choice = choose(NONE._replace(template="{{ raise_exception('no') }}"))
        assert recognised(choice, compile_template(choice.source), "<s>", "</s>") is choice


ENDS = {
    "alpaca": "</s>",
    "bagel-chatml": "</s>",
    "chatml": "<|im_end|>",
    "command-r": "<|END_OF_TURN_TOKEN|>",
    "gemma": "<end_of_turn>",
    "llama-2": "</s>",
    "llama-3": "<|eot_id|>",
    "phi-3": "<|end|>",
    "raw": "",
    "vicuna": "</s>",
}


@pytest.mark.parametrize(("name", "marker"), ENDS.items())
def test_what_ends_answers(name: str, marker: str) -> None:
    source = choose(NONE, None, name).source
    assert end_marker(compile_template(source), "<s>", "</s>") == marker


def test_an_end_that_ends_is_fine() -> None:
    assert end_warning("<|im_end|>", ("</s>", "<|im_end|>"), ()) is None
    assert end_warning("</s><s>", ("</s>",), ()) is None


def test_an_end_that_does_not() -> None:
    told = end_warning("<|im_end|>", ("</s>",), ())
    assert told and "'<|im_end|>'" in told and "(</s>)" in told and "stop string" not in told
    stopped = end_warning("<|im_end|>", ("</s>",), ("<|im_end|>",))
    assert stopped and stopped.endswith("it is a stop string instead")
    nothing = end_warning("", ("", "</s>"), ("x",))
    assert nothing and "with nothing" in nothing
