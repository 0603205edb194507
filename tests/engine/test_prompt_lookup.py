"""Guesses at how a text goes on."""

from hypothesis import given
from hypothesis import strategies as st

from server.engine.prompt_lookup import MIN_RIGHT, PromptLookup


def after(prompt: list[int], answer: list[int]) -> PromptLookup:
    """A lookup that has seen an answer come."""
    lookup = PromptLookup(list(prompt))
    for token in answer:
        lookup.take(token)
    return lookup


def test_a_quotation_is_guessed_on() -> None:
    lookup = after([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 50, 51], [2, 3, 4, 5, 6, 7])
    assert lookup.n_sure == 4
    assert lookup.draft(3) == [8, 9, 10]


def test_no_draft_before_some_guesses_were_right() -> None:
    text = [*range(1, 10), 50, 51]
    # The first two are what is looked for.
    assert after(text, text[: 2 + MIN_RIGHT - 1]).n_sure == 0
    assert after(text, text[: 2 + MIN_RIGHT]).n_sure == MIN_RIGHT


def test_a_loop_is_guessed_on_beyond_what_is_there() -> None:
    lookup = after([1, 2], [5, 6, 7, 5, 6, 7, 5, 6, 7])
    assert lookup.n_sure == 4
    assert lookup.draft(7) == [5, 6, 7, 5, 6, 7, 5]


def test_the_last_occurrence_counts() -> None:
    assert after([1, 2, 3, 9, 1, 2, 4, 5, 6, 7, 8, 0], [1, 2, 4, 5, 6, 7]).draft(1) == [8]


def test_a_wrong_guess_ends_it() -> None:
    quoted = [2, 3, 4, 5, 6, 7, 8, 9]
    assert after([1, *quoted, 50], quoted).n_sure == len(quoted) - 2
    assert after([1, *quoted, 50], [*quoted, 40]).n_sure == 0


def test_a_text_without_repetition_is_never_guessed() -> None:
    lookup = PromptLookup([0])
    for token in range(1, 200):
        lookup.take(token)
        assert lookup.n_sure == 0


@given(st.lists(st.integers(0, 2), min_size=1, max_size=6), st.lists(st.integers(0, 2)))
def test_it_is_sure_of_as_many_as_it_would_have_guessed(
    prompt: list[int], answer: list[int]
) -> None:
    """Against guesses that are looked for anew in the whole text, before each token."""
    lookup = PromptLookup(list(prompt))
    tokens, n_right, at = list(prompt), 0, last_after(prompt)
    for token in answer:
        right = at is not None and tokens[at] == token
        tokens.append(token)
        n_right = n_right + 1 if right else 0
        at = at + 1 if right and at is not None else last_after(tokens)
        lookup.take(token)
        assert lookup.n_sure == (n_right if n_right >= MIN_RIGHT else 0)
        if lookup.n_sure and at is not None:
            guessed = list(tokens)
            for i in range(8):
                guessed.append(guessed[at + i])
            assert lookup.draft(8) == guessed[len(tokens) :]


def last_after(tokens: list[int]) -> int | None:
    """Where the token is that came after the last earlier occurrence of the last two."""
    return next(
        (at for at in range(len(tokens) - 1, 1, -1) if tokens[at - 2 : at] == tokens[-2:]), None
    )
