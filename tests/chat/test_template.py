"""Templates: what transformers offers them, and client text that never becomes control."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.chat.template import compile_template, render
from server.errors import InvalidRequest
from server.ipc import Text

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|im_start|>", "<|im_end|>", "<|im|>", "<s>", '<|"|>', "<")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
TRICKY = st.lists(
    st.sampled_from((*SPECIAL, "x", " ", "\n", "\ue000", "\ue001", "\\ue000", "|im_end|>", "é"))
).map("".join)


def user(content: object, **fields: object) -> dict[str, object]:
    return {"role": "user", "content": content, **fields}


def plain(source: str, *messages: dict[str, object], **variables: object) -> str:
    return render(compile_template(source), messages, variables).text


def literal_texts(text: Text) -> list[str]:
    return [text.text[start:end] for start, end in text.literal]


class TestEnvironment:
    def test_blocks_are_trimmed(self) -> None:
        source = (
            "{% for m in messages %}\n   {% if true %}\n{{ m.content }}\n"
            "   {% endif %}\n{% endfor %}"
        )
        assert plain(source, user("a"), user("b")) == "a\nb\n"

    def test_tojson_keeps_characters_that_html_would_escape(self) -> None:
        assert plain("{{ v | tojson }}", v={"k": "<é'&"}) == '{"k": "<é\'&"}'

    def test_tojson_takes_the_arguments_of_json_dumps(self) -> None:
        source = "{{ v | tojson(indent=1, separators=(',', ':'), sort_keys=true) }}"
        assert plain(source, v={"b": 1, "a": 2}) == '{\n "a":2,\n "b":1\n}'

    def test_loop_controls(self) -> None:
        source = (
            "{% for m in messages %}{% if m.content == 'b' %}{% break %}{% endif %}"
            "{{ m.content }}{% endfor %}"
        )
        assert plain(source, user("a"), user("b"), user("c")) == "a"

    def test_generation_blocks_are_rendered_in_place(self) -> None:
        source = (
            "{% generation %}{% set x = 1 %}[{{ messages[0].content }}]{% endgeneration %}{{ x }}"
        )
        assert plain(source, user("a")) == "[a]1"

    def test_strftime_now(self) -> None:
        assert re.fullmatch(r"\d{4}-\d\d", plain("{{ strftime_now('%Y-%m') }}"))

    def test_raise_exception_speaks_to_the_client(self) -> None:
        with pytest.raises(InvalidRequest, match="roles must alternate") as caught:
            plain("{{ raise_exception('roles must alternate') }}")
        assert caught.value.param == "messages"

    @pytest.mark.parametrize(
        "source",
        [
            "{{ 'a' + none }}",
            "{{ 1 / 0 }}",
            "{{ messages[0].content.x.y }}",
            "{{ [].pop() }}",
            "{{ messages[0].__class__.__mro__ }}",
            "{{ messages.append(1) }}",
            "{% for i in range(99999999) %}{% endfor %}",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        ],
    )
    def test_faults_of_a_template_are_told(self, source: str) -> None:
        with pytest.raises(InvalidRequest, match="the chat template says"):
            plain(source, user("a"))

    def test_a_template_that_does_not_compile(self) -> None:
        with pytest.raises(InvalidRequest, match=r"does not compile: .*line 2"):
            compile_template("a\n{% if %}")

    def test_a_template_nested_too_deeply(self) -> None:
        with pytest.raises(InvalidRequest, match="nested too deeply"):
            compile_template("{{" + "(" * 100_000 + "}}")

    def test_a_lone_surrogate_is_refused(self) -> None:
        with pytest.raises(InvalidRequest, match=r"lone surrogate, U\+D800"):
            plain(CHATML, user("\ud800"))

    def test_our_variables_count_more_than_the_clients(self) -> None:
        template = compile_template("{{ a }}{{ b }}")
        text = render(template, [], {"a": "client", "b": "client"}, own={"a": "ours"})
        assert text.text == "oursclient"


class TestLiteral:
    def test_nothing_to_protect_leaves_no_ranges(self) -> None:
        text = render(compile_template(CHATML), [user("hi <there>")], {}, ("<|im_end|>",))
        assert text == Text("<|im_start|>user\nhi <there><|im_end|>\n")

    def test_control_text_in_content(self) -> None:
        text = render(compile_template(CHATML), [user("a<|im_end|>b")], {}, SPECIAL[:2])
        assert text == Text("<|im_start|>user\na<|im_end|>b<|im_end|>\n", ((18, 28),))

    def test_neighbours_are_one_range(self) -> None:
        text = render(compile_template(CHATML), [user("<s><|im_end|><s>")], {}, SPECIAL[:4])
        assert literal_texts(text) == ["<s><|im_end|><s>"]

    def test_longer_texts_win(self) -> None:
        text = render(
            compile_template("{{ messages[0].content }}"), [user("<s>x")], {}, ("<", "<s>")
        )
        assert literal_texts(text) == ["<s>"]

    def test_names_arguments_keys_and_variables_too(self) -> None:
        call = {"function": {"name": "<s>1", "arguments": {"<s>2": ["<s>3"]}}}
        source = (
            "{{ messages[0].name }}-{{ messages[0].tool_calls[0].function.name }}-"
            "{{ messages[0].tool_calls[0].function.arguments | tojson }}-{{ v }}<s>"
        )
        messages = [user("", name="<s>0", tool_calls=[call])]
        text = render(compile_template(source), messages, {"v": "<s>4"}, ("<s>",))
        assert text.text == '<s>0-<s>1-{"<s>2": ["<s>3"]}-<s>4<s>'
        assert literal_texts(text) == ["<s>"] * 5

    def test_roles_are_left_alone(self) -> None:
        source = "{% if messages[0].role == 'user' %}ok{% endif %}{{ messages[0].content }}"
        text = render(compile_template(source), [user("user")], {}, ("user",))
        assert text == Text("okuser", ((2, 6),))

    def test_marks_are_not_found_in_the_input(self) -> None:
        content = "\ue000<s>\ue001\\ue002"
        text = render(compile_template(CHATML), [user(content)], {}, ("<s>",))
        assert content in text.text
        assert literal_texts(text) == ["<s>"]

    def test_escaped_marks_are_taken_out_too(self) -> None:
        source = "{{ messages[0].content | tojson(ensure_ascii=true) }}"
        text = render(compile_template(source), [user("é<s>")], {}, ("<s>",))
        assert text == Text('"\\u00e9<s>"', ((7, 10),))

    def test_input_that_uses_up_all_marks(self) -> None:
        everything = "".join(map(chr, (*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE))))
        with pytest.raises(InvalidRequest, match="every private character"):
            render(compile_template(CHATML), [user(everything + "<s>")], {}, ("<s>",))

    @pytest.mark.parametrize("cut", ["[1:]", "[:-1]", "[1:-1]"])
    def test_a_mark_that_the_template_cuts_off(self, cut: str) -> None:
        source = "<s>{{ messages[0].content" + cut + " }}<s>"
        text = render(compile_template(source), [user("<s>")], {}, ("<s>",))
        assert text.text == "<s><s><s>"
        assert text.literal == (() if cut == "[1:-1]" else ((3, 6),))

    def test_marks_of_different_pairs_do_not_enclose_the_template(self) -> None:
        source = (
            "{{ messages[0].content[0] }}|a template's own <s> here|{{ messages[0].content[-1] }}"
        )
        text = render(compile_template(source), [user("<s>")], {}, ("<s>",))
        assert text == Text("|a template's own <s> here|")

    @settings(deadline=None)
    @given(st.lists(TRICKY, min_size=1, max_size=4))
    def test_all_client_text_survives_and_none_is_control(self, contents: list[str]) -> None:
        source = "{% for m in messages %}\0{{ m.content }}\0{% endfor %}"
        text = render(compile_template(source), [user(c) for c in contents], {}, SPECIAL)
        assert text.text == "".join(f"\0{content}\0" for content in contents)
        control = re.compile("|".join(map(re.escape, SPECIAL)))
        free = list(text.text)
        for start, end in text.literal:
            free[start:end] = "\1" * (end - start)
        assert not control.search("".join(free))
        assert all(control.search(part) for part in literal_texts(text))

    @settings(deadline=None)
    @given(
        TRICKY,
        st.sampled_from(["| trim", "[2:-2]", ".split('|') | join('|')", "| upper", "| tojson"]),
    )
    def test_ranges_are_sound_whatever_a_template_does(self, content: str, change: str) -> None:
        source = "<s>{{ messages[0].content " + change + " }}<s>"
        text = render(compile_template(source), [user(content)], {}, SPECIAL)
        last = 0
        for start, end in text.literal:
            assert last <= start < end <= len(text.text)
            last = end + 1
        assert "\ue000" not in text.text or "\ue000" in content

    @settings(deadline=None)
    @given(JSON)
    def test_any_variables_can_be_searched(self, value: Any) -> None:
        source = "{{ v | tojson }}"
        marked = render(compile_template(source), [user("<s>")], {"v": value}, ("<s>",))
        assert marked.text == render(compile_template(source), [], {"v": value}).text


class TestContinue:
    def test_ends_where_the_content_ends(self) -> None:
        messages = [user("Hi"), {"role": "assistant", "content": "Well, "}]
        text = render(compile_template(CHATML), messages, {}, continue_final=True)
        assert text.text.endswith("<|im_start|>assistant\nWell, ")

    def test_trimmed_where_the_template_trims(self) -> None:
        source = CHATML.replace("m.content", "m.content | trim")
        messages = [{"role": "assistant", "content": "Well, "}]
        text = render(compile_template(source), messages, {}, continue_final=True)
        assert text.text.endswith("assistant\nWell,")

    def test_repeated_content_ends_at_the_last(self) -> None:
        source = "{{ messages[0].content }}|{{ messages[0].content }}|"
        messages = [{"role": "assistant", "content": "a"}]
        assert render(compile_template(source), messages, {}, continue_final=True) == Text("a|a")

    def test_control_text_in_it_is_literal(self) -> None:
        messages = [{"role": "assistant", "content": "a<s>"}]
        text = render(compile_template("{{ messages[0].content }}!"), messages, {}, ("<s>",), True)
        assert text == Text("a<s>", ((1, 4),))

    def test_a_template_that_drops_it(self) -> None:
        messages = [{"role": "assistant", "content": "a"}]
        with pytest.raises(InvalidRequest, match="leaves out") as caught:
            render(compile_template("nothing"), messages, {}, continue_final=True)
        assert caught.value.param == "continue_final_message"
