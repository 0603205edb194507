"""Bagel's two forms, and how its functions are told."""

import pytest

from server.chat.dialects.bagel import DIALECT, YAML, ask
from tests.chat.answers import read


@pytest.mark.parametrize(
    "text",
    [
        '{"function": "get_weather", "params": {"city": "Rome"}}',
        '```json\n{\n  "function": "get_weather",\n  "params": {"city": "Rome"}\n}\n```',
    ],
)
def test_json(text: str) -> None:
    assert read(DIALECT, text) == [("call", "get_weather", '{"city": "Rome"}')]


@pytest.mark.parametrize(
    "text",
    [
        "function: get_weather\nparams:\n  city: Rome",
        "```yaml\nfunction: get_weather\nparams:\n  city: Rome\n```",
        'function: "get_weather"\nparams: {city: Rome}\n',
    ],
)
def test_yaml(text: str) -> None:
    assert read(YAML, text) == [("call", "get_weather", '{"city": "Rome"}')]


def test_yaml_with_values_of_all_kinds() -> None:
    text = (
        "function: get_weather\nparams:\n  days: 3\n  filters:\n    wet: true\n    on: 2024-01-02"
    )
    assert read(YAML, text) == [
        ("call", "get_weather", '{"days": 3, "filters": {"wet": true, "true": "2024-01-02"}}')
    ]


def test_text_after_yaml() -> None:
    text = "function: get_weather\nparams:\n  city: Rome\n\nThat should do."
    assert read(YAML, text) == [
        ("call", "get_weather", '{"city": "Rome"}'),
        ("content", "That should do."),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "function: unknown\nparams: {}",
        "function: [",
        "function: - a",
        "function:",
        "function: get_weather: x",
    ],
)
def test_yaml_that_is_no_call(text: str) -> None:
    assert read(YAML, text) == [("content", text)]


def test_functions_are_told() -> None:
    tools = [
        {
            "type": "function",
            "function": {
                "name": "file_search",
                "description": "Look: for 'text'",
                "parameters": {
                    "properties": {
                        "query": {"type": "string", "description": "What for"},
                        "n": {"type": "integer"},
                        "any": True,
                    }
                },
            },
        },
        {"type": "function", "function": {"name": "now"}},
    ]
    told = ask(tools, "Where is it?", "YAML")
    assert told == (
        "As an AI assistant, please select the most suitable function and parameters from the list "
        "of available functions below, based on the user's input. Provide your response in YAML "
        "format.\n\nInput: Where is it?\n\nAvailable functions:\n"
        "file_search:\n"
        "  description: 'Look: for ''text'''\n"
        "  params:\n"
        "    query: What for\n"
        '    n: \'{"type": "integer"}\'\n'
        "    any: 'true'\n"
        "now:\n"
        "  description: ''\n"
        "  params: {}\n"
    )
    assert DIALECT.ask
    assert DIALECT.ask(tools, "Where is it?") == told.replace("YAML", "JSON")
    assert YAML.ask
    assert YAML.ask(tools, "Where is it?") == told


def test_parameters_of_parameters() -> None:
    kinds = ["count_occurrences", "find_line"]
    filters = {"type": "object", "properties": {"keyword": {"description": "The word"}}}
    properties = {"action": {"description": "What to do", "enum": kinds}, "filters": filters}
    function = {"name": "file_analytics", "parameters": {"properties": properties}}
    assert ask([{"function": function}], "How many?").endswith(
        "  params:\n"
        '    action: What to do (one of "count_occurrences", "find_line")\n'
        "    filters:\n"
        "      keyword: The word\n"
    )
