"""SamplingParams: what is refused, and the forms that are read as one."""

import json
import math

import pytest
from pydantic import ValidationError

from server.sampling import ALIASES, SamplingParams


@pytest.mark.parametrize(
    ("name", "lowest", "highest"),
    [
        ("temperature", 0, 100),
        ("dynatemp_range", 0, 100),
        ("dynatemp_exponent", 0, 100),
        ("top_k", -1, 2**31 - 1),
        ("top_p", 0, 1),
        ("min_p", 0, 1),
        ("xtc_probability", 0, 1),
        ("xtc_threshold", 0, 1),
        ("mirostat", 0, 2),
        ("adaptive_target", -1, 1),
        ("adaptive_decay", 0, 0.99),
        ("presence_penalty", -2, 2),
        ("frequency_penalty", -2, 2),
        ("repeat_last_n", -1, 2**31 - 1),
        ("dry_allowed_length", 0, 2**31 - 1),
        ("dry_penalty_last_n", -1, 2**31 - 1),
        ("min_tokens", 0, 2**31 - 1),
    ],
)
def test_a_range_includes_its_ends_and_no_more(name: str, lowest: float, highest: float) -> None:
    for value in (lowest, highest):
        params = SamplingParams.model_validate({name: value})
        assert getattr(params, name) == value
    for value in (lowest - 1, highest + 1):
        with pytest.raises(ValidationError):
            SamplingParams.model_validate({name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("typical_p", 0),
        ("typical_p", 1.1),
        ("repeat_penalty", 0),
        ("repeat_penalty", 101),
        ("top_n_sigma", -1.1),
        ("mirostat_tau", -0.1),
        ("mirostat_eta", -0.1),
        ("dry_multiplier", -0.1),
        ("dry_base", 0.9),
        ("dry_sequence_breakers", ["x"] * 65),
        ("seed", "abc"),
        ("temprature", 1),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        SamplingParams.model_validate({name: value})
    assert caught.value.errors()[0]["loc"] == (name,)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_number_is_endless(value: float) -> None:
    numbers = [
        name for name, field in SamplingParams.model_fields.items() if field.annotation is float
    ]
    assert len(numbers) > 10
    for name in numbers:
        with pytest.raises(ValidationError):
            SamplingParams.model_validate({name: value})


def test_aliases_are_other_names_of_parameters_that_exist() -> None:
    names = SamplingParams.model_fields.keys()
    assert set(ALIASES.values()) <= names
    assert not ALIASES.keys() & names


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"15": -1.5, "16": 2}, ((15, -1.5), (16, 2.0))),
        ({15: -1.5}, ((15, -1.5),)),
        ([[15, -1.5], [16, 0.5]], ((15, -1.5), (16, 0.5))),
        ({"15": False}, ((15, -math.inf),)),
        ([[15, False]], ((15, -math.inf),)),
        ({"15": -100}, ((15, -math.inf),)),
        ({"15": -99.9, "16": -1e9}, ((15, -99.9), (16, -math.inf))),
        ({"15": 100}, ((15, 100.0),)),
        ({}, ()),
        ([], ()),
    ],
)
def test_the_forms_of_logit_bias(given: object, read: object) -> None:
    assert SamplingParams.model_validate({"logit_bias": given}).logit_bias == read


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ([1, 2], (0,)),
        ([[1]], (0, 1)),
        ([[1, 2, 3]], (0,)),
        ([[1, None]], (0, 1)),
        (["ab"], (0,)),
        ("ab", ()),
        (7, ()),
        (None, ()),
        ({"one": 1}, (0, 0)),
        ({"-1": 1}, (0, 0)),
        ({str(2**31): 1}, (0, 0)),
        ({"1.5": 1}, (0, 0)),
        ({"1": True}, (0, 1)),
        ({"1": "much"}, (0, 1)),
        ({"1": math.nan}, (0, 1)),
        ({"1": math.inf}, (0, 1)),
        ({"1": 10**400}, (0, 1)),
        ({"1": {}}, (0, 1)),
        ({str(token): 1 for token in range(1025)}, ()),
    ],
)
def test_a_malformed_logit_bias_is_refused_with_its_place(
    given: object, place: tuple[int, ...]
) -> None:
    with pytest.raises(ValidationError) as caught:
        SamplingParams.model_validate({"logit_bias": given})
    assert caught.value.errors()[0]["loc"][: len(place) + 1] == ("logit_bias", *place)


def test_parameters_survive_a_round_trip() -> None:
    params = SamplingParams.model_validate({"logit_bias": {"7": False, "8": 1}, "seed": 5})
    assert SamplingParams.model_validate(params.model_dump()) == params


def test_a_parameter_that_was_set_can_be_told_from_a_default() -> None:
    params = SamplingParams.model_validate(json.loads('{"temperature": 1.0}'))
    assert params == SamplingParams()
    assert params.model_fields_set == {"temperature"}
