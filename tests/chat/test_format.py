"""Which template a model gets, and what it is given."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from server.chat.choice import PACKAGE
from server.chat.format import ChatFormat, chat_format, plan_for
from server.chat.turn import Plan, Tool, ToolChoice, Turn
from server.config import ModelConfig
from server.errors import InvalidRequest, UnsupportedParameter
from server.ipc import Grammar, ModelInfo, Text
from tests.api.scripted import INFO
from tests.chat.answers import PYTHON, WEATHER, read_every_way, run

HI = [{"role": "user", "content": "Hi"}]
OPEN = [*HI, {"role": "assistant", "content": "Well"}]


def format_of(template: str | None, info: ModelInfo) -> ChatFormat:
    return chat_format(ModelConfig(path=Path("model.gguf"), template=template), info)


def test_chatml_by_name() -> None:
    messages = [{"role": "system", "content": "Be short."}, *HI]
    assert format_of("chatml", INFO).prompt(messages) == Text(
        "<|im_start|>system\nBe short.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_chatml_has_no_system_prompt_of_its_own_and_takes_null_content() -> None:
    prompt = format_of("chatml", INFO).prompt(
        [{"role": "assistant", "content": None}], add_generation_prompt=False
    )
    assert prompt.text == "<|im_start|>assistant\n<|im_end|>\n"


def test_every_template_of_the_folder_renders() -> None:
    folder = PACKAGE.parent / "templates"
    names = [path.stem for path in folder.glob("*.jinja")]
    assert "chatml" in names
    for name in names:
        assert "Hi" in format_of(name, INFO).prompt(HI).text


def test_the_configured_template_goes_before_the_ggufs(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("mine: {{ messages[0].content }}")
    info = replace(INFO, template="GGUF: {{ messages[0].content }}")
    assert format_of(str(path), info).prompt(HI).text == "mine: Hi"
    assert format_of(None, info).prompt(HI).text == "GGUF: Hi"


@pytest.mark.parametrize("template", [None, ""])
def test_no_template_at_all(template: str | None) -> None:
    with pytest.raises(InvalidRequest, match="set `template`"):
        format_of(None, replace(INFO, template=template))


@pytest.mark.parametrize("name", ["missing", "../config", "missing.jinja"])
def test_a_configured_template_that_does_not_exist(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{name}.*does not exist: looked at "):
        format_of(name, INFO)


def test_developer_is_system_unless_the_template_knows_it() -> None:
    messages = [{"role": "developer", "content": "x"}]
    source = "{{ messages[0].role }}:{{ messages[0].content }}"
    assert format_of(None, replace(INFO, template=source)).prompt(messages).text == "system:x"
    knows = source + "{# developer #}"
    assert format_of(None, replace(INFO, template=knows)).prompt(messages).text == "developer:x"


def test_the_variables_of_transformers() -> None:
    source = (
        "{{ bos_token }}{{ eos_token }}{{ add_generation_prompt }}"
        "{{ tools is none }}{{ documents is none }}{{ thinking }}"
    )
    chat = format_of(None, replace(INFO, template=source))
    assert chat.prompt(HI, {"thinking": "on"}).text == "<s><|im_end|>TrueTrueTrueon"


def test_our_variables_are_not_the_clients() -> None:
    with pytest.raises(InvalidRequest, match="set by the server") as caught:
        format_of("chatml", INFO).prompt(HI, {"messages": []})
    assert caught.value.param == "chat_template_kwargs.messages"


def test_clients_control_text_is_literal() -> None:
    prompt = format_of("chatml", INFO).prompt([{"role": "user", "content": "<|im_end|>"}])
    assert prompt.literal == ((17, 27),)


def test_continue_final_message() -> None:
    prompt = format_of("chatml", INFO).prompt(
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
        format_of("chatml", INFO).prompt(messages, None, generation, True)
    assert caught.value.param == "continue_final_message"


CHATML_TOOLS = (
    "{% for t in tools or [] %}<tool>{{ t | tojson }}</tool>{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls %}<tool_call>\n{{ c.function | tojson }}\n</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if thinking %}<think>\n{% endif %}{% endif %}"
    '{# {"arguments" <think></think> #}'
)
CALL = '<tool_call>\n{"name": "python", "arguments": {"code": "1"}}\n</tool_call>'


def tooled(special: tuple[str, ...] = INFO.special) -> ChatFormat:
    return format_of(None, replace(INFO, template=CHATML_TOOLS, special=special))


class TestPlan:
    """A turn, put to the engine and read."""

    def test_text_only(self) -> None:
        plan = format_of("chatml", INFO).plan(Turn(HI))
        assert plan.prompt == format_of("chatml", INFO).prompt(HI)
        assert (plan.grammar, plan.visible, plan.stop) == (None, (), ())
        assert read_every_way(plan.parser, CALL) == [("content", CALL)]

    def test_tools(self) -> None:
        plan = tooled().plan(Turn(HI, (PYTHON,)))
        assert plan.prompt.text.startswith('<tool>{"type": "function", "function": {"name": "pyth')
        assert plan.grammar is None
        assert read_every_way(plan.parser, CALL) == [("call", "python", '{"code": "1"}')]

    def test_each_choice_has_a_parser_of_its_own(self) -> None:
        plan = tooled().plan(Turn(HI, (PYTHON,)))
        first, second = plan.parser(), plan.parser()
        assert first.push("a") == second.push("a")
        assert run(first, [CALL]) == run(second, [CALL])

    def test_a_tool_without_words(self) -> None:
        text = tooled().plan(Turn(HI, (Tool("f"),))).prompt.text
        assert (
            '{"type": "function", "function": {"name": "f", "description": "", '
            '"parameters": {"type": "object", "properties": {}}}}'
        ) in text

    def test_none(self) -> None:
        plan = tooled().plan(Turn(HI, (PYTHON,), ToolChoice("none")))
        assert "python" not in plan.prompt.text
        assert plan.grammar
        assert read_every_way(plan.parser, CALL) == [("content", CALL)]

    def test_named(self) -> None:
        plan = tooled().plan(Turn(HI, (PYTHON, WEATHER), ToolChoice("required", ("python",))))
        assert "get_weather" in plan.prompt.text
        assert plan.grammar
        assert plan.grammar.syntax == "lark"
        assert "get_weather" not in plan.grammar.source

    @pytest.mark.parametrize(
        ("turn", "reason"),
        [
            (Turn(HI, (PYTHON,), ToolChoice("required", ("f",))), 'there is no tool "f"'),
            (Turn(HI, (), ToolChoice("required")), "there are no tools"),
        ],
    )
    def test_choices_that_cannot_be_made(self, turn: Turn, reason: str) -> None:
        with pytest.raises(InvalidRequest, match=reason) as caught:
            tooled().plan(turn)
        assert caught.value.param == "tool_choice"

    def test_thoughts_that_the_prompt_begins(self) -> None:
        plan = tooled().plan(Turn(HI, variables={"thinking": True}))
        assert plan.prompt.text.endswith("<think>\n")
        found = read_every_way(plan.parser, "Hm\n</think>\n\nYes")
        assert found == [("reasoning", "Hm"), ("content", "Yes")]

    def test_thoughts_that_are_continued(self) -> None:
        messages = [*HI, {"role": "assistant", "content": "<think>Hm"}]
        turn = Turn(messages, add_generation_prompt=False, continue_final_message=True)
        plan = tooled().plan(turn)
        assert plan.prompt.text.endswith("<think>Hm")
        assert read_every_way(plan.parser, "m</think>Yes")[0] == ("reasoning", "m")

    def test_a_grammar_that_leaves_no_room_for_thoughts_closes_them(self) -> None:
        answer = Grammar("gbnf", 'root ::= "a"')
        plan = tooled().plan(Turn(HI, variables={"thinking": True}, answer=answer))
        assert plan.prompt.text.endswith("<think>\n\n</think>\n\n")
        assert plan.grammar is answer
        assert read_every_way(plan.parser, "a") == [("content", "a")]

    def test_only_control_tokens_that_are_read_are_visible(self) -> None:
        special = ("<s>", "<tool_call>", "</tool_call>", "</think>", "<|im_end|>")
        chat = tooled(special=special)
        assert chat.plan(Turn(HI, (PYTHON,))).visible == special[1:4]
        assert chat.plan(Turn(HI)).visible == ("</think>",)

    def test_harmony_is_read_without_tools_too(self) -> None:
        source = "<|channel|><|message|>{{ messages[0].content }}"
        special = ("<|channel|>", "<|message|>", "<|return|>")
        chat = format_of(None, replace(INFO, template=source, special=special))
        assert chat.plan(Turn(HI)).visible == special[:2]

    def test_tokens_without_brackets_are_written_by_their_ids(self) -> None:
        source = "[TOOL_CALLS][ARGS]{{ messages[0].content }}"
        info = replace(INFO, template=source, special=("[TOOL_CALLS]", "[ARGS]"))
        turn = Turn(HI, (PYTHON,), ToolChoice("required"))
        with pytest.raises(InvalidRequest, match="the id of the token"):
            format_of(None, info).plan(turn)
        plan = format_of(None, replace(info, special_ids=(9, 32))).plan(turn)
        assert plan.grammar
        assert plan.grammar.source.startswith("start:  <[9]> calls")
        assert '"python" <[32]>' in plan.grammar.source

    def test_clients_control_text_in_tools_and_calls_is_literal(self) -> None:
        tool = Tool("f", "say <|im_end|>", {"properties": {"<|im_end|>": {}}})
        function = {"name": "f", "arguments": {"x": "<|im_end|>"}}
        call = {"id": "a", "type": "function", "function": function}
        messages = [*HI, {"role": "assistant", "content": None, "tool_calls": [call]}, *HI]
        for chat in (tooled(), format_of("chatml", INFO)):
            prompt = chat.plan(Turn(messages, (tool,))).prompt
            literal = [prompt.text[start:end] for start, end in prompt.literal]
            assert literal == ["<|im_end|>"] * 3

    def test_the_configured_dialect(self) -> None:
        config = ModelConfig(path=Path("model.gguf"), template="chatml", dialect="bagel")
        plan = chat_format(config, INFO).plan(Turn(HI, (PYTHON,)))
        assert "As an AI assistant" in plan.prompt.text
        text = '{"function": "python", "params": {"code": "1"}}'
        assert read_every_way(plan.parser, text) == [("call", "python", '{"code": "1"}')]


class TestBagel:
    """Models of Bagel's name, and its templates: their own ways with functions and documents."""

    LLAMA = replace(INFO, architecture="llama")
    BAGEL = ModelConfig(path=Path("bagel-dpo-8x7b-v0.2.Q4_K_M.gguf"))
    OTHER = ModelConfig(path=Path("model.gguf"))
    DOCUMENTS = ({"date": "2021-01-01", "text": "Cats are blue."}, {"text": "So are dogs."})
    BLOCKS = (
        "BEGININPUT\nBEGINCONTEXT\ndate: 2021-01-01\nENDCONTEXT\nCats are blue.\nENDINPUT\n"
        "BEGININPUT\nSo are dogs.\nENDINPUT\nBEGININSTRUCTION\nHi\nENDINSTRUCTION"
    )

    @pytest.mark.parametrize(
        ("config", "asked", "bagels"),
        [
            (BAGEL, None, True),
            (BAGEL, "vicuna", True),
            (BAGEL, "alpaca", True),
            (BAGEL, "zephyr", False),
            (OTHER, "bagel-chatml", True),
            (OTHER, "bagel-alpaca", True),
            (OTHER, "llama-2", False),
            (OTHER, "vicuna", False),
            (ModelConfig(path=Path("vicuna-7b.gguf")), None, False),
        ],
    )
    def test_whose_templates(self, config: ModelConfig, asked: str | None, bagels: bool) -> None:
        chat = chat_format(config, self.LLAMA, asked)
        assert (chat.dialect.name, chat.adapt.blocks) == ("bagel" if bagels else "generic", bagels)

    def test_the_configured_dialect_goes_before(self) -> None:
        for name in ("generic", "bagel_yaml"):
            config = self.BAGEL.model_copy(update={"dialect": name})
            assert chat_format(config, self.LLAMA).dialect.name == name

    def test_functions_stand_beside_what_is_asked_last(self) -> None:
        function = {"name": "python", "arguments": {"code": "1"}}
        called = {"role": "assistant", "tool_calls": [{"id": "a", "function": function}]}
        result = {"role": "tool", "tool_call_id": "a", "content": "one"}
        turn = Turn([*HI, called, result], (PYTHON,))
        text = plan_for(self.BAGEL, self.LLAMA, turn).prompt.text
        assert text.startswith("<s>[INST] As an AI assistant, please select")
        assert "JSON format.\n\nInput: Hi\n\nAvailable functions:\npython:\n" in text
        assert '[/INST] {\n  "function": "python",\n  "params": {"code": "1"}\n} <|im_end|>' in text
        assert text.endswith("<s>[INST] Result of python:\none [/INST]")

    def test_documents(self) -> None:
        turn = Turn(HI, documents=self.DOCUMENTS)
        text = plan_for(self.BAGEL, self.LLAMA, turn).prompt.text
        assert text == f"<s>[INST] {self.BLOCKS} [/INST]"
        text = plan_for(self.BAGEL, self.LLAMA, replace(turn, tools=(PYTHON,))).prompt.text
        assert f"Input: {self.BLOCKS}\n\nAvail" in text

    def test_control_text_in_documents_is_literal(self) -> None:
        turn = Turn(HI, documents=({"<|im_end|>": "<|im_end|>", "text": "<|im_end|>"},))
        prompt = plan_for(self.BAGEL, self.LLAMA, turn).prompt
        literal = [prompt.text[start:end] for start, end in prompt.literal]
        assert literal == ["<|im_end|>"] * 3

    def test_nobody_to_ask(self) -> None:
        said = [{"role": "system", "content": "x"}]
        for turn in (Turn(said, documents=self.DOCUMENTS), Turn(said, (PYTHON,))):
            with pytest.raises(InvalidRequest, match="no message of a user's") as caught:
                plan_for(self.BAGEL, self.LLAMA, turn)
            assert caught.value.param == ("documents" if turn.documents else "tools")


class TestDocuments:
    """Where a template takes documents itself, and where it does not."""

    TAKES = "{% for d in documents or [] %}<{{ d.title }}|{{ d.text }}>{% endfor %}"

    def test_a_template_that_takes_them(self) -> None:
        chat = format_of(None, replace(INFO, template=self.TAKES))
        documents = ({"title": "A", "text": "a"}, {"title": "B", "text": "<|im_end|>"})
        prompt = chat.plan(Turn(HI, documents=documents)).prompt
        assert prompt == Text("<A|a><B|<|im_end|>>", literal=((8, 18),))
        assert chat.plan(Turn(HI)).prompt.text == ""

    def test_a_template_that_does_not(self) -> None:
        with pytest.raises(UnsupportedParameter, match="no place for documents") as caught:
            format_of("chatml", INFO).plan(Turn(HI, documents=({"text": "a"},)))
        assert caught.value.param == "documents"


class TestStops:
    """Stop strings of the template, unless a token of the model ends answers there anyway."""

    LLAMA = replace(INFO, special=("<s>", "</s>"), ends=("</s>",), eos="</s>", special_ids=())

    def test_of_a_shipped_template(self) -> None:
        plan = format_of("alpaca", self.LLAMA).plan(Turn(HI))
        assert plan.stop == ("### Instruction:",)
        assert plan.template[:2] == ("alpaca", "configuration")

    def test_of_a_template_that_writes_the_same(self) -> None:
        folder = PACKAGE.parent / "templates"
        source = (folder / "vicuna.jinja").read_text() + "{# not the same text #}"
        plan = format_of(None, replace(self.LLAMA, template=source)).plan(Turn(HI))
        assert (plan.stop, plan.template.name) == (("USER:",), "vicuna")

    def test_not_of_any_other(self) -> None:
        plan = format_of(None, replace(self.LLAMA, template="{{ messages }}")).plan(Turn(HI))
        assert (plan.stop, plan.template.name) == ((), None)

    def test_control_tokens_that_end_nothing_are_seen(self) -> None:
        info = replace(self.LLAMA, special=("<|im_start|>", "</s>"))
        plan = format_of("chatml", info).plan(Turn(HI))
        assert plan.stop == ("<|im_end|>", "<|im_start|>")
        assert plan.visible == ("<|im_start|>",)

    def test_ends_that_are_not_told_are_eos(self) -> None:
        assert format_of("llama-2", replace(self.LLAMA, ends=())).stops == ("[INST]",)

    def test_a_warning_once_per_model(self, caplog: pytest.LogCaptureFixture) -> None:
        info = replace(self.LLAMA, name="a llama of its own")
        assert format_of("chatml", info).warning
        assert format_of("chatml", info).warning
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert "a llama of its own: the chat template ends answers with '<|im_end|>'" in (
            record.getMessage()
        )
        assert format_of("llama-2", info).warning is None


class TestAsked:
    """The template that a request asks for."""

    def plan(self, asked: str | None, info: ModelInfo = INFO) -> Plan:
        config = ModelConfig(path=Path("bagel.gguf"), template="chatml")
        return plan_for(config, info, Turn(HI, template=asked))

    def test_by_name(self) -> None:
        assert self.plan("raw").prompt.text == "Hi"
        assert self.plan(None).prompt.text.startswith("<|im_start|>")

    def test_its_own(self) -> None:
        assert self.plan("<{{ messages[0].content }}>").prompt.text == "<Hi>"

    def test_faults_are_its_own_too(self) -> None:
        with pytest.raises(InvalidRequest, match="does not compile") as caught:
            self.plan("{% if %}")
        assert caught.value.param == "chat_template"

    def test_the_family_by_the_files_name(self) -> None:
        info = replace(INFO, architecture="llama")
        plan = plan_for(ModelConfig(path=Path("bagel.Q4.gguf")), info, Turn(HI))
        assert plan.template[:2] == ("llama-2", "family")
        assert plan.prompt.text == "<s>[INST] Hi [/INST]"

    def test_an_endless_template_costs_its_time_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("server.chat.budget.LIMIT_S", 0.1)
        loop = "{% for i in range(99999) %}"
        info = replace(INFO, template=f"{loop}{loop}{{% endfor %}}{{% endfor %}}")
        start = time.thread_time()
        with pytest.raises(InvalidRequest, match="it ran for more than"):
            plan_for(ModelConfig(path=Path("endless.gguf")), info, Turn(HI))
        assert time.thread_time() - start < 0.5

    def test_the_ggufs_template_for_documents(self) -> None:
        source = "{% for d in documents %}<{{ d.text }}>{% endfor %}{{ messages[0].content }}"
        info = replace(INFO, template="plain", document_template=source)
        config = ModelConfig(path=Path("m.gguf"))
        assert plan_for(config, info, Turn(HI)).prompt.text == "plain"
        turn = Turn(HI, documents=({"text": "one"}, {"text": "two"}))
        assert plan_for(config, info, turn).prompt.text == "<one><two>Hi"
        with pytest.raises(UnsupportedParameter, match="no place for documents"):
            plan_for(config, replace(info, document_template=None), turn)

    def test_the_ggufs_template_for_tools(self) -> None:
        info = replace(INFO, template="plain", tool_template=CHATML_TOOLS)
        config = ModelConfig(path=Path("m.gguf"))
        assert plan_for(config, info, Turn(HI)).prompt.text == "plain"
        assert "<tool>" in plan_for(config, info, Turn(HI, (PYTHON,))).prompt.text
