"""The folder for what is remembered between runs, and can be deleted at any time."""

import logging
import os
import tempfile
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

log = logging.getLogger(__name__)

Content = TypeVar("Content", bound=BaseModel)


def cache_folder() -> Path:
    """The folder that CORRAL_CACHE names, or ours in the user's folder of caches."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("CORRAL_CACHE") or Path(caches) / "corral").expanduser()


def read_file(path: Path, kind: type[Content]) -> Content | None:
    """What a file of JSON holds; None if it is not there, or damaged, which is logged."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        log.warning("%s is made anew: %s", path, str(error).splitlines()[0])
        return None


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
