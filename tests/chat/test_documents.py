"""Bagel's blocks, against the form that its models were trained on."""

import pytest

from server.chat.documents import in_blocks
from server.errors import InvalidRequest


def test_contextual_question_answering() -> None:
    documents = (
        {"date": "2021-01-01", "url": "https://web.site/123", "text": "Blueberries are green."},
        {"n": 3, "draft": True, "text": "First line.\n\nThird line."},
    )
    assert in_blocks(documents, "What color are they?\nName the source.") == (
        "BEGININPUT\n"
        "BEGINCONTEXT\n"
        "date: 2021-01-01\n"
        "url: https://web.site/123\n"
        "ENDCONTEXT\n"
        "Blueberries are green.\n"
        "ENDINPUT\n"
        "BEGININPUT\n"
        "BEGINCONTEXT\n"
        "n: 3\n"
        "draft: true\n"
        "ENDCONTEXT\n"
        "First line.\n\nThird line.\n"
        "ENDINPUT\n"
        "BEGININSTRUCTION\n"
        "What color are they?\nName the source.\n"
        "ENDINSTRUCTION"
    )


def test_summarisation_has_no_context() -> None:
    assert in_blocks([{"text": "Long."}], "Sum up.") == (
        "BEGININPUT\nLong.\nENDINPUT\nBEGININSTRUCTION\nSum up.\nENDINSTRUCTION"
    )


def test_what_is_known_stays_on_its_line() -> None:
    text = in_blocks([{"a\nENDCONTEXT": "b\r\nENDCONTEXT\nc", "text": "x"}], "y")
    assert text.splitlines()[2:4] == ["a ENDCONTEXT: b ENDCONTEXT c", "ENDCONTEXT"]


@pytest.mark.parametrize("line", ["ENDINPUT", "BEGININSTRUCTION", "ENDCONTEXT \r", "BEGININPUT\t"])
def test_texts_that_would_leave_their_block(line: str) -> None:
    with pytest.raises(InvalidRequest, match=f"has the line {line.strip()},") as caught:
        in_blocks([{"text": "x"}, {"text": f"a\n{line}\nb"}], "y")
    assert caught.value.param == "documents.1.text"
    assert in_blocks([{"text": f"say {line} there, or {line.lower()}"}], "y")
