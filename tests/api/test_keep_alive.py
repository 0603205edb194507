"""keep_alive and ttl: what says a length of time, and what does not."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api.keep_alive import SECONDS, read_keep_alive
from server.errors import InvalidRequest
from tests.api.scripted import error_of, house

SOUND: list[tuple[object, float]] = [
    (0, 0),
    (5, 5),
    (0.5, 0.5),
    (-1, -1),
    ("0", 0),
    ("90", 90),
    ("-1", -1),
    ("500ms", 0.5),
    ("30s", 30),
    ("5m", 300),
    ("1.5h", 5400),
    ("1h30m", 5400),
    ("1h2m3s4ms", 3723.004),
    ("-1m", -60),
    ("  5m ", 300),
]

UNSOUND: list[object] = [
    "",
    "m",
    "5 m",
    "5x",
    "5d",
    "5m!",
    "m5",
    "--5m",
    "1m-5s",
    "soon",
    "nan",
    "inf",
    "-inf",
    math.nan,
    math.inf,
    True,
    False,
    [5],
    {"seconds": 5},
    10**400,
    "9" * 400,
    "9" * 400 + "h",
    "-" + "9" * 400 + "h",
]


@pytest.mark.parametrize("name", ["keep_alive", "ttl"])
@pytest.mark.parametrize(("value", "seconds"), SOUND)
def test_lengths_of_time(name: str, value: object, seconds: float) -> None:
    assert read_keep_alive({name: value}) == pytest.approx(seconds)


@pytest.mark.parametrize("name", ["keep_alive", "ttl"])
@pytest.mark.parametrize("value", UNSOUND)
def test_what_is_none(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest, match=f"{name}: seconds, or a text as 5m") as caught:
        read_keep_alive({name: value})
    assert caught.value.param == name


@pytest.mark.parametrize("extras", [{}, {"keep_alive": None}, {"ttl": None}, {"user": "5m"}])
def test_nothing_said(extras: dict[str, object]) -> None:
    assert read_keep_alive(extras) is None


def test_ollamas_name_counts_more() -> None:
    assert read_keep_alive({"ttl": 5, "keep_alive": "1m"}) == 60
    assert read_keep_alive({"ttl": 5, "keep_alive": None}) == 5


NUMBERS = st.floats(0, 1e6).map(lambda x: f"{x:.6f}")
PARTS = st.lists(st.tuples(NUMBERS, st.sampled_from(sorted(SECONDS))), min_size=1, max_size=5)


@given(PARTS, st.booleans())
def test_parts_add_up(parts: list[tuple[str, str]], negative: bool) -> None:
    text = "".join(number + unit for number, unit in parts)
    seconds = sum(float(number) * SECONDS[unit] for number, unit in parts)
    read = read_keep_alive({"keep_alive": f"-{text}" if negative else text})
    assert read == pytest.approx(-seconds if negative else seconds)


@given(
    st.one_of(
        st.text(),
        st.text("0123456789.-+eE_hms "),
        st.integers(),
        st.floats(),
        st.lists(st.integers(), max_size=2),
    )
)
def test_anything_is_a_length_of_time_or_refused(value: object) -> None:
    try:
        seconds = read_keep_alive({"keep_alive": value})
    except InvalidRequest as error:
        assert error.param == "keep_alive"
        assert len(error.message) < 200
    else:
        assert isinstance(seconds, float)
        assert math.isfinite(seconds)


SAY: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/responses": {"input": "Hi"},
}


@pytest.mark.parametrize("path", SAY)
async def test_it_is_a_field_of_requests(path: str) -> None:
    say = SAY[path]
    given: list[tuple[dict[str, object], float | None]] = [
        ({}, None),
        ({"keep_alive": "1m"}, 60),
        ({"ttl": 0}, 0),
        ({"keep_alive": -1}, -1),
    ]
    async with house() as h:
        for fields, seconds in given:
            response = await h.post(path, **say, **fields)
            assert response.status_code == 200, response.text
            assert "x-corral-ignored" not in response.headers
            assert h.pool.keep_alive_s == seconds
        response = await h.post(path, **say, keep_alive="long")
    assert response.status_code == 400
    assert error_of(response)["param"] == "keep_alive"
