"""The forms in which texts and token ids come."""

import pytest

from server.api.openai.inputs import read_inputs


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Hi", ("Hi",)),
        ("", ("",)),
        (["a", "b"], ("a", "b")),
        ([1, 2, 99], ((1, 2, 99),)),
        ([[0, 1], [2]], ((0, 1), (2,))),
    ],
)
def test_forms(value: object, expected: object) -> None:
    assert read_inputs(value) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (list[str](), "not empty"),
        (5, "must be a text"),
        (dict[str, str](), "must be a text"),
        (["a", 1], "item 1 is not a text"),
        ([1, "a"], "item 1 is not a token id"),
        ([1, True], "item 1 is not a token id"),
        ([1, 1.0], "item 1 is not a token id"),
        ([list[int]()], "item 0 must be token ids, at least one"),
        ([[1], 2], "item 1 must be token ids"),
        ([[1], [2, None]], "item 1.1 is not a token id"),
    ],
)
def test_bad_forms(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_inputs(value)
