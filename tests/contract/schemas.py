"""The schemas that answers are asked to match."""

from collections.abc import Mapping

WEATHER: Mapping[str, object] = {
    "type": "object",
    "properties": {
        "place": {"type": "string", "maxLength": 20},
        "unit": {"type": "string", "enum": ["C", "F"]},
    },
    "required": ["place", "unit"],
    "additionalProperties": False,
}
"""What a tool is called with."""

PERSON: Mapping[str, object] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
"""What an answer's text is."""
