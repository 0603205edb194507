"""Documents in Bagel's blocks: texts, each with what is known of it."""

import re
from collections.abc import Mapping, Sequence

from server.errors import InvalidRequest

_DELIMITER = re.compile(r"^(BEGIN|END)(INPUT|CONTEXT|INSTRUCTION)[ \t]*\r?$", re.MULTILINE)


def in_blocks(documents: Sequence[Mapping[str, object]], instruction: str) -> str:
    """A block for each document, then the instruction in one of its own. Raises InvalidRequest."""
    blocks = [_block(number, document) for number, document in enumerate(documents)]
    return "\n".join((*blocks, "BEGININSTRUCTION", instruction, "ENDINSTRUCTION"))


def _block(number: int, document: Mapping[str, object]) -> str:
    text = str(document["text"])
    # What strangers wrote must not pass for the user's instruction.
    if found := _DELIMITER.search(text):
        raise InvalidRequest(
            f"documents.{number}.text: has the line {found[0].strip()}, which delimits documents "
            "in this model's prompts",
            param=f"documents.{number}.text",
        )
    known = [f"{_line(key)}: {_line(value)}" for key, value in document.items() if key != "text"]
    context = ["BEGINCONTEXT", *known, "ENDCONTEXT"] if known else []
    return "\n".join(("BEGININPUT", *context, text, "ENDINPUT"))


def _line(value: object) -> str:
    """A value in one line. Truth as in JSON."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return " ".join(text.splitlines())
