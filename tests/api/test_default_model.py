"""Which model answers where none is named."""

from pathlib import Path

import pytest

from server.api.default_model import default_model
from server.config import ModelConfig
from server.errors import InvalidRequest


def models(*ids: str) -> dict[str, ModelConfig]:
    """Those with a star are preloaded."""
    return {id.strip("*"): ModelConfig(path=Path("x.gguf"), preload=id.endswith("*")) for id in ids}


@pytest.mark.parametrize(
    ("ids", "chosen"),
    [(("a",), "a"), (("a*",), "a"), (("a", "b*"), "b"), (("a", "b*", "c*"), "b")],
)
def test_the_only_one_or_the_first_preloaded(ids: tuple[str, ...], chosen: str) -> None:
    assert default_model(models(*ids)) == chosen


@pytest.mark.parametrize("ids", [(), ("a", "b")])
def test_nobody_to_answer(ids: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest, match=f"none of the {len(ids)} configured") as error:
        default_model(models(*ids))
    assert error.value.param == "model"
