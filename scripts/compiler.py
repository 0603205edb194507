"""How llama.cpp is compiled here: for which GPU, by which compiler, around which of its bugs.

gcc 12 and earlier tell the optimiser that `_tile_loadconfig` reads 8 bytes where it reads 64. At
-O3 the stores to the other 56 are dropped, and llama.cpp dies at its first AMX instruction. So the
compiler is asked for the assembly of ten lines of C: do all stores arrive in it?
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping

from scripts.progress import SetupError

VARIABLES = ("GPU", "CMAKE_ARGS", "CFLAGS", "CXXFLAGS", "CC", "CXX")
"""Environment variables that decide what is built."""

GPU_FLAGS = {
    "cuda": "-DGGML_CUDA=on",
    "metal": "-DGGML_METAL=on",
    "vulkan": "-DGGML_VULKAN=on",
    "rocm": "-DGGML_HIP=on",
    "none": "",
}
"""CMake arguments by the value of GPU; none is llama.cpp's own choice."""

ALWAYS = "-DGGML_RPC=on"
"""CMake arguments of every build, before those that are asked for: GPUs of other machines."""

AMX_FLAGS = ("-fno-tree-dse", "-fno-dse")
"""Without these two passes gcc keeps the stores."""

CONSTANTS = (0x11C0DE01, 0x22C0DE02, 0x33C0DE03)
PROGRAM = f"""
#include <immintrin.h>
void configure(void) {{
    unsigned int words[16];
    words[0] = {CONSTANTS[0]};
    words[8] = {CONSTANTS[1]};
    words[14] = {CONSTANTS[2]};
    _tile_loadconfig(words);
}}
"""

DEFAULTS = {"CC": ("cc", "gcc", "clang"), "CXX": ("c++", "g++", "clang++")}
"""The names that CMake tries, in its order."""

NO_COMPILER = """no working C++ compiler ({tried}); install one:
    Debian, Ubuntu   apt install g++
    Fedora           dnf install gcc-c++
    macOS            xcode-select --install"""


def settings(environ: Mapping[str, str], built: Mapping[str, str]) -> dict[str, str]:
    """What to build: the variables that are set, and for the others what was built before."""
    wanted = {**built, **{name: environ[name] for name in VARIABLES if environ.get(name)}}
    gpu = wanted.get("GPU", "none")
    if gpu not in GPU_FLAGS:
        raise SetupError(f"GPU={gpu} is not known; the choices are {', '.join(GPU_FLAGS)}")
    if gpu == "none":
        wanted.pop("GPU", None)
    return wanted


def compiler(variable: str, wanted: Mapping[str, str]) -> list[str]:
    """The compiler that CMake takes for CC or CXX, as a command; SetupError if none works."""
    language = {"CC": "C", "CXX": "CXX"}[variable]
    inside = re.search(rf"-DCMAKE_{language}_COMPILER=(\S+)", _args(wanted))
    named = inside[1] if inside else wanted.get(variable)
    tried = [shlex.split(named)] if named else [[name] for name in DEFAULTS[variable]]
    for command in tried:
        if shutil.which(command[0]):
            version = subprocess.run([*command, "--version"], capture_output=True, check=False)
            if version.returncode == 0:
                return command
            break
    raise SetupError(NO_COMPILER.format(tried=", ".join(shlex.join(c) for c in tried)))


def drops_tile_config(command: list[str]) -> bool:
    """Whether this compiler drops stores before `_tile_loadconfig`, and AMX_FLAGS cure it."""
    return _stores(command, ()) is False and _stores(command, AMX_FLAGS) is True


def build_environ(
    wanted: Mapping[str, str], environ: Mapping[str, str], flags: tuple[str, ...]
) -> dict[str, str]:
    """The environment of the build: `wanted`, with our CMake arguments and `flags` added."""
    # A make that runs us must not rule the make that CMake may run, by its flags or its variables.
    inherited = {k: v for k, v in environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    result = {**inherited, **wanted}
    gpu = GPU_FLAGS[wanted.get("GPU", "none")]
    result["CMAKE_ARGS"] = " ".join(part for part in (ALWAYS, _args(wanted), gpu) if part)
    for name in ("CFLAGS", "CXXFLAGS"):
        given = wanted.get(name, "").split()
        result[name] = " ".join([*given, *(flag for flag in flags if flag not in given)])
    result.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(n_cores()))
    return result


def n_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _args(wanted: Mapping[str, str]) -> str:
    return wanted.get("CMAKE_ARGS", "")


def _stores(command: list[str], flags: tuple[str, ...]) -> bool | None:
    """Whether all CONSTANTS are in the assembly; None where the compiler knows no AMX."""
    run = subprocess.run(
        [*command, "-x", "c++", "-O3", "-mamx-tile", "-mamx-int8", *flags, "-S", "-o", "-", "-"],
        input=PROGRAM,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode != 0:
        return None
    numbers = {int(number, 0) for number in re.findall(r"0x[0-9a-fA-F]+|\b[1-9]\d*", run.stdout)}
    return numbers.issuperset(CONSTANTS)
