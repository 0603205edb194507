"""Command R: `<|START_ACTION|>[...]<|END_ACTION|>`, or ``Action: ```json [...]``` `` before R7B."""

from server.chat.dialect import NAME, Answering, Dialect, Shape, json_reader
from server.chat.json_text import Keys, read_calls, skip_value
from server.chat.lark import Pattern
from server.chat.parser import Feed, Reading, accept, skip_space

KEYS = Keys("tool_name", ("parameters",))
START, END = "<|START_ACTION|>", "<|END_ACTION|>"


def read_action(feed: Feed, answering: Answering) -> Reading[bool]:
    """Read the older form. Its pseudo tool for "no tool" is read and is no call."""
    yield from accept(feed, "Action:")
    yield from skip_space(feed)
    yield from accept(feed, "```json")
    yield from skip_space(feed)
    start = feed.at
    if not (yield from read_calls(feed, KEYS, answering.names)):
        feed.at = start
        ended = yield from skip_value(feed)
        if not ended or '"directly-answer"' not in feed.text[start : feed.at]:
            return False
        feed.commit()
    yield from skip_space(feed)
    yield from accept(feed, "```")
    return True


DIALECT = Dialect(
    "command_r",
    spoken=lambda source: START in source,
    shape=Shape(
        START,
        (
            '    {"tool_call_id": "',
            Pattern("[0-9]+", "0"),
            '", "tool_name": "',
            NAME,
            '", "parameters": ',
        ),
        "}",
        start="[\n",
        between=",\n",
        end=f"\n]{END}",
    ),
    read=json_reader(KEYS, (START,), (END,)),
    marks=(END,),
)

ACTION = Dialect(
    "command_r_action",
    spoken=lambda source: "Write \\'Action:\\'" in source or "Write 'Action:'" in source,
    shape=Shape(
        "Action:",
        ('    {\n        "tool_name": "', NAME, '",\n        "parameters": '),
        "\n    }",
        start=" ```json\n[\n",
        between=",\n",
        end="\n]```",
    ),
    read=read_action,
)
