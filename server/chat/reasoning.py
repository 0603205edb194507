"""Where a model's thoughts stand in its answer."""

from typing import NamedTuple

from server.chat.parser import Feed, Reading, accept, skip_space, until
from server.chat.turn import Reasoning


class Thoughts(NamedTuple):
    """The texts around a model's thoughts."""

    start: str
    end: str


KNOWN = (
    Thoughts("<seed:think>", "</seed:think>"),
    Thoughts("<|START_THINKING|>", "<|END_THINKING|>"),
    Thoughts("[THINK]", "[/THINK]"),
    Thoughts("<|channel>thought", "<channel|>"),
    Thoughts("<|inner_prefix|>", "<|inner_suffix|>"),
    Thoughts("<think>", "</think>"),
)
"""Tried in this order against a template's source."""


def thoughts_of(source: str) -> Thoughts | None:
    """How a model with this template marks its thoughts; None: it does not think."""
    for thoughts in KNOWN:
        if thoughts.start in source or thoughts.end in source:
            return thoughts
    return None


def is_inside(thoughts: Thoughts | None, prompt: str, begun: str = "") -> bool:
    """Whether the answer to `prompt` begins with thoughts that the prompt has opened.

    `begun`: the part of a final message that is to be continued.
    """
    if thoughts is None:
        return False
    opened = begun.rpartition(thoughts.start)[1:]
    return prompt.rstrip().endswith(thoughts.start) or bool(
        opened[0] and thoughts.end not in opened[1]
    )


def read_thoughts(feed: Feed, thoughts: Thoughts, inside: bool) -> Reading[bool]:
    """Read the thoughts that come next. False: there are none, and nothing has been read."""
    yield from skip_space(feed)
    begun = yield from accept(feed, thoughts.start)
    if not begun and not inside:
        feed.at = 0
        return False
    if not begun:
        feed.at = 0
    yield from skip_space(feed)
    feed.commit()
    if (yield from until(feed, (thoughts.end,), Reasoning)):
        feed.at += len(thoughts.end)
        yield from skip_space(feed)
        feed.commit()
    return True
