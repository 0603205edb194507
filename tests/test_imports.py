"""Who may import whom, read from the sources. The rules themselves are tried on made-up sources.

And what a process has imported when it has started, for imports are most of a start.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVER = Path(__file__).resolve().parent.parent / "server"

LEAVES = frozenset(
    {
        "config",
        "config_file",
        "copying",
        "engine_config",
        "environment",
        "errands",
        "errors",
        "estimate",
        "filenames",
        "gguf",
        "gguf_file",
        "layout",
        "metrics",
        "need",
        "threads",
        "placement",
        "quants",
        "sampling",
    }
)

OURS = {
    "__init__": frozenset[str](),
    **dict.fromkeys(LEAVES, LEAVES),
    "example": LEAVES,
    "ipc": LEAVES,
    "packing": LEAVES | {"ipc"},
    "engine": LEAVES | {"engine", "ipc", "packing"},
    "pool": LEAVES | {"pool", "ipc", "packing"},
    "chat": LEAVES | {"chat", "ipc"},
    "api": LEAVES | {"api", "chat", "pool", "ipc"},
    "app": LEAVES | {"api", "chat", "pool", "ipc"},
    "commands": LEAVES | {"app", "chat", "commands", "ipc", "pool"},
    "cli": LEAVES | {"commands"},
    "evaluations": LEAVES | {"cli", "commands"},
    "terminal": LEAVES | {"cli", "commands"},
    "command_line": LEAVES | {"cli", "commands", "evaluations", "example", "pool", "terminal"},
    "__main__": LEAVES | {"command_line", "pool"},
}
"""Parts of `server` that a part may import. The pool starts the engine, it does not import it."""

THEIRS = {
    "llama_cpp": ("server.engine.llama.library",),
    "gguf": ("server.gguf", "server.gguf_file"),
    "huggingface_hub": (
        "server.pool.hub",
        "server.pool.pull",
        "server.pool.download",
        "server.pool.remote_header",
    ),
    "llguidance": ("server.engine.grammar",),
    "fastapi": ("server.app", "server.api"),
    "starlette": ("server.app", "server.api"),
    "uvicorn": ("server.commands.http",),
}
"""Packages that only these modules, and those inside them, may import."""

NOT_AT_START = {
    "server.engine.main": (
        *("asyncio", "fastapi", "gguf", "huggingface_hub", "jinja2", "pydantic_settings", "yaml"),
        *("llguidance", "server.engine.grammar", "server.engine.schema", "server.engine.gbnf"),
        *("llama_cpp.llama", "llama_cpp.llama_chat_format", "server.chat", "server.config"),
    ),
    "server.__main__": ("asyncio", "pydantic", "server.config", "server.ipc", "typer"),
    "server.commands.serve": (
        *("fastapi", "gguf", "huggingface_hub", "jinja2", "llama_cpp", "numpy", "rich"),
        *("uvicorn", "server.api", "server.chat", "server.engine"),
    ),
    "server.config_file": ("pydantic_settings",),
    "server.commands.http": (
        *("gguf", "huggingface_hub", "llama_cpp", "llguidance", "matplotlib", "numpy", "rich"),
        *("pydantic.v1", "server.engine"),
    ),
}
"""What has not been imported by then, for it costs time and memory: in a worker, in the server when
it starts a worker's process, begins to load, reads its settings, and answers.
"""

NAMELESS = frozenset({"utils", "util", "helpers", "base", "common", "misc", "manager"})


def imports(tree: ast.Module, package: str) -> Iterator[str]:
    """Everything imported anywhere in `tree`, a module of `package`, by its absolute name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            start = above if node.level else []
            source = ".".join([*start, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def faults(server: Path) -> list[str]:
    """Each breach of the rules in the folder `server`, as `module imports name`."""
    found: list[str] = []
    for path in sorted(server.rglob("*.py")):
        parts = ["server", *path.relative_to(server).with_suffix("").parts]
        found += [f"{'.'.join(parts)} has no name" for part in parts if part in NAMELESS]
        package = ".".join(parts[:-1])
        module = package if parts[-1] == "__init__" and len(parts) > 2 else ".".join(parts)
        part = parts[1]
        if part not in OURS:
            found.append(f"{module} has no rule")
            continue
        for name in imports(ast.parse(path.read_text()), package):
            if not allowed(module, part, name, server):
                found.append(f"{module} imports {name}")
    return found


def allowed(module: str, part: str, name: str, server: Path) -> bool:
    """Whether `module`, in `part` of the server, may import `name`."""
    if not inside(name, "server"):
        return all(
            any(inside(module, place) for place in places)
            for package, places in THEIRS.items()
            if inside(name, package)
        )
    if name == "server":
        return False  # `import server` gives every part that somebody else has imported
    wanted = name.split(".")[1]
    is_part = (server / wanted).is_dir() or (server / f"{wanted}.py").is_file()
    return wanted in OURS[part] if is_part else True  # a name of the package itself: __version__


def test_the_server_keeps_the_rules() -> None:
    assert faults(SERVER) == []


def test_the_rules_are_about_modules_that_exist() -> None:
    parts = {path.stem for path in SERVER.iterdir() if path.name != "__pycache__"}
    assert set(OURS) == parts


def printed(code: str) -> str:
    """By a process of its own."""
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=SERVER.parent, capture_output=True, text=True, check=True)
    return run.stdout


@pytest.mark.parametrize(("module", "needless"), NOT_AT_START.items())
def test_a_start_imports_nothing_needless(module: str, needless: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*sorted({set(needless)} & sys.modules.keys()))"
    assert printed(code) == "\n"


def test_who_imports_llama_cpp_after_us_gets_all_of_it() -> None:
    code = (
        "from server.engine.llama.library import C; import llama_cpp;"
        "from llama_cpp import llama_cpp as c;"
        "print(llama_cpp.Llama.__name__, C is c, llama_cpp.llama_cpp is c)"
    )
    assert printed(code) == "Llama True True\n"


def test_a_llama_cpp_that_is_there_already_is_taken() -> None:
    code = (
        "import llama_cpp; from server.engine.llama.library import C; import sys;"
        "print(llama_cpp.llama_cpp is C, sys.modules['llama_cpp'] is llama_cpp)"
    )
    assert printed(code) == "True True\n"


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("engine/batch.py", "import llama_cpp", "server.engine.batch imports llama_cpp"),
        (
            "engine/batch.py",
            "from llama_cpp import llama_cpp",
            "server.engine.batch imports llama_cpp.llama_cpp",
        ),
        (
            "pool/pool.py",
            "def late():\n    import llama_cpp.llama_cpp as c",
            "server.pool.pool imports llama_cpp.llama_cpp",
        ),
        (
            "engine/llama/model.py",
            "from llama_cpp import llama_cpp",
            "server.engine.llama.model imports llama_cpp.llama_cpp",
        ),
        ("pool/pool.py", "import fastapi", "server.pool.pool imports fastapi"),
        (
            "chat/format.py",
            "from starlette.responses import Response",
            "server.chat.format imports starlette.responses.Response",
        ),
        ("ipc.py", "from server.pool import pool", "server.ipc imports server.pool.pool"),
        ("ipc.py", "from server import pool", "server.ipc imports server.pool"),
        ("ipc.py", "from . import pool", "server.ipc imports server.pool"),
        ("ipc.py", "import server", "server.ipc imports server"),
        ("config.py", "from server.ipc import Text", "server.config imports server.ipc.Text"),
        (
            "chat/format.py",
            "from server.api import sse",
            "server.chat.format imports server.api.sse",
        ),
        (
            "chat/format.py",
            "from ..pool import pool",
            "server.chat.format imports server.pool.pool",
        ),
        ("engine/kv.py", "import server.pool.pool", "server.engine.kv imports server.pool.pool"),
        (
            "pool/worker.py",
            "from server.engine import main",
            "server.pool.worker imports server.engine.main",
        ),
        (
            "api/sse.py",
            "from server.engine.kv import Cells",
            "server.api.sse imports server.engine.kv.Cells",
        ),
        ("pool/__init__.py", "from .. import engine", "server.pool imports server.engine"),
        ("cache.py", "", "server.cache has no rule"),
        ("engine/utils.py", "", "server.engine.utils has no name"),
        ("common/kv.py", "", "server.common.kv has no name"),
    ],
)
def test_a_breach_is_found(tmp_path: Path, path: str, source: str, fault: str) -> None:
    lay_out(tmp_path)
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_text(source)
    assert fault in faults(tmp_path)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("engine/llama/library.py", "from llama_cpp import llama_cpp"),
        (
            "api/openai/chat.py",
            "from fastapi import APIRouter\nfrom server.pool.pool import ModelPool",
        ),
        ("api/openai/chat.py", "from .. import sse\nfrom ...chat import format"),
        ("app.py", "import fastapi\nfrom server import __version__, api"),
        ("gguf.py", "import gguf"),
        ("engine/kv.py", "from server.ipc import Text\nfrom server.config_file import load"),
    ],
)
def test_what_is_allowed_is_no_breach(tmp_path: Path, path: str, source: str) -> None:
    lay_out(tmp_path)
    (tmp_path / path).write_text(source)
    assert faults(tmp_path) == []


def lay_out(server: Path) -> None:
    """The parts of a server, all empty."""
    for folder in ("api", "api/openai", "chat", "engine", "engine/llama", "pool"):
        (server / folder).mkdir()
    for part in ("__init__", "ipc", "app", *LEAVES):
        (server / f"{part}.py").touch()
