"""README.md and the settings it documents."""

from scripts.settings_table import README, with_table


def test_every_setting_is_in_the_readme() -> None:
    text = README.read_text()
    assert text == with_table(text), "run `make config`"
    assert "| `models.ID.engine.n_ctx` |" in text
    assert "| `models.ID.sampling.min_p` | `0.05` |" in text
