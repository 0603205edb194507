"""Runs other people's programs against the server, each in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.clients import node_and_npm

HERE = Path(__file__).resolve().parent
PROGRAMS = HERE / "programs"
CLIENTS = Path(sys.prefix) / "clients"

PROGRAM_S = 540.0
"""A safety net: whoever takes that long hangs."""


def run(
    command: Sequence[str | Path],
    home: Path,
    environ: Mapping[str, str] | None = None,
    cwd: Path = PROGRAMS,
    within_s: float = PROGRAM_S,
    said: str = "",
) -> str:
    """Run to the end, with nothing of the user's own settings; what it printed.

    `home` is an empty folder for what it writes, `said` its standard input. It must succeed.
    """
    keep = ("PATH", "LANG", "LC_ALL", "TMPDIR")
    environment = {name: os.environ[name] for name in keep if name in os.environ}
    environment |= {"HOME": str(home), "OPENAI_API_KEY": "none", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**environment, **(environ or {})},
        input=said,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=within_s,
        check=False,
    )
    assert done.returncode == 0, f"{command}: exit status {done.returncode}\n{done.stdout}"
    return done.stdout


def python() -> Path:
    """The interpreter beside other people's packages."""
    path = CLIENTS / "bin" / "python"
    assert path.is_file(), f"{path} is missing; `make test` installs it"
    return path


def node() -> Path:
    """The JavaScript interpreter."""
    assert (HERE / "js" / "node_modules").is_dir(), "`make test` installs the JavaScript clients"
    return node_and_npm(Path(sys.prefix))[0]
