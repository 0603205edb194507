"""Hermes 2 Pro and 3, Qwen 2.5 and 3, Granite 4 and others: `<tool_call>{...}</tool_call>`."""

from server.chat.dialect import NAME, Dialect, Shape, json_call, json_reader
from server.chat.json_text import Keys

DIALECT = Dialect(
    "hermes",
    spoken=lambda source: "<tool_call>" in source and '"arguments"' in source,
    shape=Shape(
        "<tool_call>",
        ("\n", *json_call(NAME)),
        "}\n</tool_call>",
        between="\n<tool_call>",
    ),
    read=json_reader(Keys(), ("<tool_call>",), ("</tool_call>",)),
    marks=("</tool_call>",),
)
