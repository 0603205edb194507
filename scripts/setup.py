"""Make `.venv` ready to run: `python -m scripts.setup [extra ...]`.

A venv, llama-cpp-python compiled for this machine, the project with the extras named, the demo
model. Each step leaves a stamp that says what was done, so that the next run has nothing to do.
"""

import hashlib
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from scripts import compiler
from scripts.packaged import DEMO
from scripts.progress import SetupError, run_logged

ROOT = Path(__file__).resolve().parent.parent
ENGINE = "llama-cpp-python"

NEEDLESS = ("LLAVA_BUILD=OFF", f"CMAKE_PROJECT_llama_cpp_INCLUDE={ROOT}/scripts/llama_cpp.cmake")
"""CMake variables that leave out half of what would be compiled, and none of what is called."""


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Set up for the extras named; the exit status."""
    try:
        prepare(root, frozenset(arguments), os.environ)
    except SetupError as error:
        sys.stderr.write(f"corral: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\ncorral: set-up interrupted; it goes on where it was next time\n")
        return 130
    return 0


def prepare(root: Path, extras: frozenset[str], environ: Mapping[str, str]) -> None:
    """Do what is not done yet, in the order in which one step needs the other."""
    compiler.settings(environ, {})  # an unknown GPU is told before anything is made
    venv = root / ".venv"
    make_venv(venv)
    build_engine(root, venv, environ)
    install_project(root, venv, extras, environ)
    compile_sources(root, venv)
    DEMO.fetch(root / "models", venv / "bin" / "python", environ)


def make_venv(venv: Path) -> None:
    """Create `venv` for the running Python, unless it is there or is what runs."""
    if Path(sys.prefix).resolve() == venv.resolve() or is_venv_of(venv, sys.version_info[:2]):
        return
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(venv)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise SetupError(
            f"{made.stdout}{made.stderr}{sys.executable} cannot create {venv}; on Debian and "
            "Ubuntu that takes: apt install python3-venv"
        )


def is_venv_of(venv: Path, version: tuple[int, int]) -> bool:
    """Whether `venv` works and was made with this Python version."""
    config = venv / "pyvenv.cfg"
    if not config.is_file() or not os.access(venv / "bin" / "python", os.X_OK):
        return False
    pairs = (line.partition("=") for line in config.read_text().splitlines())
    made_with = {key.strip(): value.strip() for key, _, value in pairs}.get("version", "")
    return made_with.split(".")[:2] == [str(part) for part in version]


def build_engine(root: Path, venv: Path, environ: Mapping[str, str]) -> None:
    """Compile the pinned llama-cpp-python, unless that very build is installed."""
    stamp = venv / "engine.json"
    built = read_stamp(stamp)
    pin = pinned(root / "pyproject.toml")
    wanted = compiler.settings(environ, built.get("settings", {}))
    done = {"pin": pin, "settings": wanted, "always": compiler.ALWAYS}
    if built == done:
        return
    compiler.compiler("CC", wanted)
    cxx = compiler.compiler("CXX", wanted)
    flags = compiler.AMX_FLAGS if compiler.drops_tile_config(cxx) else ()
    environ = compiler.build_environ(wanted, environ, flags)
    announce(pin, cxx[0], environ, flags)
    # A build that fails leaves the one before installed, and its stamp true.
    # pip's cache may hold a wheel of the same version that was built with other flags.
    command = [venv / "bin" / "python", "-m", "pip", "install", "-v", "--no-deps", "--no-cache-dir"]
    command += ["--no-binary", ENGINE, "--force-reinstall"]
    command += ["--config-settings=ninja.make-fallback=false"]
    command += [f"--config-settings=cmake.define.{variable}" for variable in NEEDLESS]
    log = venv / "build.log"
    run_logged("compiling llama.cpp", [*command, pin], log, environ, root)
    stamp.write_text(json.dumps(done))


def announce(pin: str, cxx: str, environ: Mapping[str, str], flags: tuple[str, ...]) -> None:
    """Say what is about to take minutes."""
    cores = environ["CMAKE_BUILD_PARALLEL_LEVEL"]
    lines = [
        f"Building {pin} with {cxx}, {cores} at a time. This takes some minutes, and only once.",
        "The log is .venv/build.log.",
    ]
    if environ["CMAKE_ARGS"]:
        lines.append(f"CMake arguments: {environ['CMAKE_ARGS']}")
    if flags:
        lines.append(f"{cxx} drops AMX tile configurations; cured by {' '.join(flags)}.")
    sys.stderr.write("\n".join(lines) + "\n")


def install_project(
    root: Path, venv: Path, extras: frozenset[str], environ: Mapping[str, str]
) -> None:
    """Install the project as editable, with `extras` and those of earlier runs."""
    stamp = venv / "project.json"
    text = (root / "pyproject.toml").read_bytes()
    before = read_stamp(stamp)
    extras = extras.union(before.get("extras", []))
    done = {"pyproject": hashlib.sha256(text).hexdigest(), "extras": sorted(extras)}
    if before == done:
        return
    target = f"{root}[{','.join(sorted(extras))}]" if extras else str(root)
    command = [venv / "bin" / "python", "-m", "pip", "install", "--editable", target]
    log = venv / "install.log"
    run_logged("installing Python packages", command, log, environ, root)
    stamp.write_text(json.dumps(done))


def compile_sources(root: Path, venv: Path) -> None:
    """Have the bytecode there, even where Python is told to write none: a start takes half of that.

    Sources that have not changed are left alone.
    """
    command = [venv / "bin" / "python", "-m", "compileall", "-q", root / "server"]
    subprocess.run(command, check=False)


def pinned(pyproject: Path) -> str:
    """The requirement on llama-cpp-python, as pyproject.toml has it."""
    requirements = tomllib.loads(pyproject.read_text())["project"]["dependencies"]
    for requirement in requirements:
        if requirement.startswith(f"{ENGINE}=="):
            return requirement
    raise SetupError(f"{pyproject} does not pin {ENGINE}")


def read_stamp(stamp: Path) -> dict[str, Any]:
    """What a step noted when it was done; nothing if it was not, or not to the end."""
    try:
        return cast("dict[str, Any]", json.loads(stamp.read_text()))
    except (FileNotFoundError, ValueError):
        return {}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
