"""What models write that is not quite what they were taught: arrays, blocks and their ends."""

import pytest

from server.chat.dialect import Dialect
from server.chat.dialects import command_r, deepseek, generic, granite, hermes, mistral
from tests.chat.answers import read

OBJECT = '{"name": "get_weather", "arguments": {"city": "Rome"}}'
ROME = ("call", "get_weather", '{"city": "Rome"}')
CALL = f"{deepseek.CALL}get_weather{deepseek.SEPARATOR}" + '{"city": "Rome"}'


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        (hermes.DIALECT, f"<tool_call>[{OBJECT}]</tool_call>"),
        (hermes.DIALECT, f"<tool_call>{OBJECT}"),
        (granite.DIALECT, f"<|tool_call|> {OBJECT}"),
        (mistral.DIALECT, f"[TOOL_CALLS] {OBJECT}"),
        (mistral.ARGS, '[TOOL_CALLS]get_weather{"city": "Rome"}'),
        (mistral.ARGS, f"[TOOL_CALLS][{OBJECT}]"),
        (deepseek.DIALECT, f"{deepseek.CALLS}{CALL}"),
        (deepseek.V31, f"{deepseek.CALLS}\n{CALL}{deepseek.CALL_END}\n"),
        (generic.DIALECT, f'{{"tool_calls":[{OBJECT}]}}'),
        (command_r.ACTION, 'Action: [{"tool_name":"get_weather","parameters":{"city": "Rome"}}]'),
    ],
)
def test_a_call_nevertheless(dialect: Dialect, text: str) -> None:
    assert read(dialect, text) == [ROME]


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        (hermes.DIALECT, "<tool_call>soon</tool_call>"),
        (granite.DIALECT, "<|tool_call|>[]"),
        (mistral.ARGS, "[TOOL_CALLS]get_weather"),
        (mistral.ARGS, "[TOOL_CALLS]"),
        (deepseek.V31, f"{deepseek.CALLS}{deepseek.CALL}get_weather"),
        (deepseek.V31, f"{deepseek.CALLS}{deepseek.CALL}f{deepseek.SEPARATOR}g h"),
        (generic.DIALECT, '{"tool_calls": 1}'),
        (generic.DIALECT, '{"tool_calls": []}'),
        (generic.DIALECT, '{"other": []}'),
        (command_r.ACTION, "Action: now!"),
        (command_r.ACTION, "Action: [1]"),
    ],
)
def test_no_call(dialect: Dialect, text: str) -> None:
    assert read(dialect, text) == [("content", text)]


def test_the_pseudo_tool_for_no_tool_is_no_call() -> None:
    text = 'Action: ```json\n[{"tool_name": "directly-answer", "parameters": {}}]\n```\nHi'
    assert read(command_r.ACTION, text) == [("content", "Hi")]


def test_text_between_and_after_calls() -> None:
    text = f"One.\n<tool_call>{OBJECT}</tool_call>\n\nTwo. <tool_call>{OBJECT}</tool_call>\nEnd."
    assert read(hermes.DIALECT, text) == [
        ("content", "One."),
        ROME,
        ("content", "Two."),
        ROME,
        ("content", "End."),
    ]
