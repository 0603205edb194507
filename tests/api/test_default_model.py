"""Which model answers where none is named."""

from pathlib import Path

import pytest

from server.api.default_model import default_model, named_model
from server.config import Config, ModelConfig
from server.errors import InvalidRequest
from server.pool.pool import ModelPool


def pool(*ids: str, default: str | None = None) -> ModelPool:
    """A pool of models; those with a star are preloaded."""
    models = {
        id.strip("*"): ModelConfig(path=Path("x.gguf"), preload=id.endswith("*")) for id in ids
    }
    return ModelPool(Config(models=models, default_model=default))


@pytest.mark.parametrize(
    ("ids", "chosen"),
    [(("a",), "a"), (("a*",), "a"), (("a", "b*"), "b"), (("a", "b*", "c*"), "b")],
)
def test_the_only_one_or_the_first_preloaded(ids: tuple[str, ...], chosen: str) -> None:
    assert default_model(pool(*ids)) == chosen


def test_the_configured_one_before_all() -> None:
    assert default_model(pool("a", "b*", "c", default="c")) == "c"


@pytest.mark.parametrize("ids", [(), ("a", "b")])
def test_nobody_to_answer(ids: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest, match=f"none of the {len(ids)} models") as error:
        default_model(pool(*ids))
    assert error.value.param == "model"


@pytest.mark.parametrize(
    ("ids", "model", "chosen"),
    [
        (("a", "b*"), "a", "a"),
        (("a", "b*"), "nobody", "nobody"),
        (("a", "b*"), "dummy", "b"),
        (("a", "b*"), "tgi", "b"),
        (("tgi", "b*"), "tgi", "tgi"),
    ],
)
def test_what_is_no_name(ids: tuple[str, ...], model: str, chosen: str) -> None:
    assert named_model(pool(*ids), model) == chosen
