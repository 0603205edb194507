"""Granite 3: `<|tool_call|>[{"name": ..., "arguments": {...}}]`."""

from server.chat.dialect import NAME, Dialect, Shape, json_call, json_reader
from server.chat.json_text import Keys

DIALECT = Dialect(
    "granite",
    spoken=lambda source: "<|tool_call|>" in source,
    shape=Shape("<|tool_call|>", json_call(NAME), "}", start="[", between=", ", end="]"),
    read=json_reader(Keys(), ("<|tool_call|>",)),
)
