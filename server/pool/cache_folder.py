"""The folder for what is remembered between runs, and can be deleted at any time."""

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """The folder that CORRAL_CACHE names, or ours in the user's folder of caches."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("CORRAL_CACHE") or Path(caches) / "corral").expanduser()


def replace_file(path: Path, content: str) -> None:
    """Write the whole file or nothing. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(content)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
