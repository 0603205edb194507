"""The JavaScript SDK: its tests are in its language, tests/third_party/js/sdk.test.mjs."""

from pathlib import Path

from tests.contract.conftest import BROKEN, NARROW
from tests.e2e.asking import MODEL
from tests.third_party.running import HERE, node, run


def test_the_javascript_sdk(url: str, tmp_path: Path) -> None:
    environ = {
        "CORRAL_URL": url,
        "CORRAL_MODEL": MODEL,
        "CORRAL_NARROW": NARROW,
        "CORRAL_BROKEN": BROKEN,
    }
    command = [node(), "--test", "--test-reporter=spec", "sdk.test.mjs"]
    told = run(command, tmp_path, environ, cwd=HERE / "js")
    assert "fail 0" in told, told
    assert "skipped 0" in told, told
