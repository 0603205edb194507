"""gpt-oss: harmony, where each message of an answer names its channel and its recipient."""

import re

from server.chat.dialect import NAME, Answering, Dialect, Offer, Shape, call_rules
from server.chat.json_text import arguments, peek
from server.chat.parser import Feed, Reading, accept, read_to, skip_space, until
from server.chat.turn import Content, Reasoning

START, CHANNEL, MESSAGE, END = "<|start|>", "<|channel|>", "<|message|>", "<|end|>"
CONSTRAIN, CALL, RETURN = "<|constrain|>", "<|call|>", "<|return|>"
FINAL = f"{CHANNEL}final{MESSAGE}"
_RECIPIENT = re.compile(r"to=(?:functions\.)?([^\s<]+)")


def read_answer(feed: Feed, answering: Answering) -> Reading[None]:
    """Read one message after the other. What has no header is content."""
    while (yield from peek(feed)):
        header = yield from _read_header(feed)
        recipient = _RECIPIENT.search(header)
        if recipient and recipient[1] != "assistant" and answering.names:
            yield (begin := feed.call(recipient[1]))
            yield from skip_space(feed)
            yield from arguments(feed, begin.index)
            yield from skip_space(feed)
        else:
            kind = Reasoning if f"{CHANNEL}analysis" in header else Content
            yield from until(feed, (END, CALL, RETURN, START), kind)
        yield from accept(feed, END, CALL, RETURN)
        feed.commit()


def _read_header(feed: Feed) -> Reading[str]:
    """Read up to a message's text. Empty: there is no header, and nothing has been read."""
    yield from skip_space(feed)
    begun = yield from accept(feed, START, CHANNEL, "to=")
    feed.at = 0
    if not begun:
        return ""
    header = yield from read_to(feed, MESSAGE)
    if header is None and begun != "to=":
        # Cut off in a header, which says nothing to anybody.
        header, feed.at = feed.text, len(feed.text)
    if header is not None:
        feed.commit()
    return header or ""


def _read_calls(feed: Feed, answering: Answering) -> Reading[bool]:
    n_before = feed.n_calls
    yield from read_answer(feed, answering)
    return feed.n_calls > n_before


def grammar(offer: Offer) -> str:
    """Analysis, then a call, or a final message."""
    spell = offer.spelling.text
    analysis = f"{spell(CHANNEL + 'analysis' + MESSAGE)} text {spell(END + START + 'assistant')}"
    if not offer.spelling.is_control(END):
        analysis = f"{spell(CHANNEL + 'analysis' + MESSAGE)} to_end {spell(START + 'assistant')}"
    body = "calls" if offer.required else "(calls | final)" if offer.tools else "final"
    return (
        f"start: analysis? {body}\nanalysis: {analysis}\n"
        f"final: {spell(FINAL)} {offer.answer or 'text'}\n"
        f"text: TEXT\nTEXT: /(?s:.*)/\nto_end[lazy]: /(?s:.*)<\\|end\\|>/\n"
        + (call_rules(SHAPE, offer) if offer.tools else "")
    )


SHAPE = Shape(
    "",
    (f"{CHANNEL}commentary to=functions.", NAME, f" {CONSTRAIN}json{MESSAGE}"),
)

DIALECT = Dialect(
    "gpt_oss",
    spoken=lambda source: CHANNEL in source and MESSAGE in source,
    shape=SHAPE,
    read=_read_calls,
    marks=(START, CHANNEL, MESSAGE, END, CONSTRAIN, CALL),
    read_answer=read_answer,
    grammar=grammar,
    answer_start=FINAL,
)
