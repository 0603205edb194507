"""The peers, built once into a cache folder outside the repository.

llama-server and llama-batched-bench come from the llama.cpp that llama-cpp-python's source
distribution vendors, with the compiler flags that the installed llama-cpp-python was built with, so
that both sides run the same kernels. The example server of that distribution runs in an environment
of its own, on the very library that this environment has.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import venv
from dataclasses import dataclass
from pathlib import Path

# gcc 12.2 drops the stores that fill AMX's tile configuration; these flags keep them.
COMPILER_FLAGS = "-fno-tree-dse -fno-dse"
# As llama-cpp-python configures llama.cpp: shared libraries, Release, native instructions.
CMAKE_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=ON",
    "-DGGML_NATIVE=ON",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
)
TARGETS = ("llama-server", "llama-batched-bench")
# The script imports what reads pictures; this environment's library is built without it.
NO_PICTURES = """\
import sys, types
sys.modules["llama_cpp.mtmd_cpp"] = types.ModuleType("llama_cpp.mtmd_cpp")
"""
# The script's own list, with uvicorn's fast loop and parser: a knowing user would have them.
EXAMPLE_PACKAGES = (
    "fastapi",
    "jinja2",
    "numpy",
    "openai",
    "pydantic",
    "safetensors",
    "uvicorn[standard]",
    "websockets",
    "diskcache",
    "typing-extensions",
)


class BuildError(Exception):
    """A peer could not be built; the message names the command and its log."""


@dataclass(frozen=True)
class Cache:
    """Where the built things lie: one folder per version of llama-cpp-python."""

    root: Path

    @property
    def source(self) -> Path:
        """The unpacked source distribution."""
        return self.root / f"llama_cpp_python-{llama_cpp_version()}"

    @property
    def build(self) -> Path:
        """The build tree of llama.cpp."""
        return self.root / "build"

    def binary(self, name: str) -> Path:
        """The path of a built program."""
        return self.build / "bin" / name

    @property
    def example_python(self) -> Path:
        """The interpreter of the example server's environment."""
        return self.root / "example-venv" / "bin" / "python"

    @property
    def example_script(self) -> Path:
        """The example server."""
        return self.source / "examples" / "server" / "server.py"


def llama_cpp_version() -> str:
    """The version of llama-cpp-python that is installed here."""
    return importlib.metadata.version("llama-cpp-python")


def open_cache() -> Cache:
    """The cache folder, from CORRAL_BENCH_CACHE or under ~/.cache."""
    configured = os.environ.get("CORRAL_BENCH_CACHE")
    base = Path(configured) if configured else Path.home() / ".cache" / "corral" / "bench"
    root = base.resolve() / llama_cpp_version()
    root.mkdir(parents=True, exist_ok=True)
    return Cache(root)


def run_logged(command: list[str], log: Path) -> None:
    """Run a command with its output in a file; BuildError names the file when it fails."""
    with log.open("ab") as output:
        output.write(f"$ {' '.join(command)}\n".encode())
        output.flush()
        code = subprocess.run(command, stdout=output, stderr=output, check=False).returncode
    if code:
        raise BuildError(f"`{' '.join(command[:3])} ...` ended with {code}, see {log}")


def ensure_source(cache: Cache) -> None:
    """Download and unpack the source distribution of the installed llama-cpp-python."""
    if cache.source.is_dir():
        return
    name = f"llama-cpp-python=={llama_cpp_version()}"
    archive = cache.root / f"llama_cpp_python-{llama_cpp_version()}.tar.gz"
    if not archive.exists():
        pip = [sys.executable, "-m", "pip", "download", "--no-deps"]
        run_logged(
            [*pip, "--no-binary", "llama-cpp-python", "--dest", str(cache.root), name],
            cache.root / "download.log",
        )
    with tarfile.open(archive) as tar:
        tar.extractall(cache.root, filter="data")


def ensure_binaries(cache: Cache) -> None:
    """Build llama-server and llama-batched-bench; a matter of minutes, once."""
    if all(cache.binary(target).exists() for target in TARGETS):
        return
    ensure_source(cache)
    flags = os.environ.get("CFLAGS", COMPILER_FLAGS)
    cxx_flags = os.environ.get("CXXFLAGS", flags)
    log = cache.root / "build.log"
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    options = [*CMAKE_OPTIONS, f"-DCMAKE_C_FLAGS={flags}", f"-DCMAKE_CXX_FLAGS={cxx_flags}"]
    source = cache.source / "vendor" / "llama.cpp"
    run_logged(["cmake", "-S", str(source), "-B", str(cache.build), *generator, *options], log)
    jobs = str(os.cpu_count() or 1)
    run_logged(["cmake", "--build", str(cache.build), "-j", jobs, "--target", *TARGETS], log)


def ensure_example(cache: Cache) -> None:
    """Make the example server's environment, with this environment's llama_cpp linked into it."""
    ready = cache.root / "example-venv" / "complete"
    if ready.exists():
        return
    ensure_source(cache)
    venv.create(cache.root / "example-venv", with_pip=True, clear=True)
    python = str(cache.example_python)
    log = cache.root / "example.log"
    run_logged([python, "-m", "pip", "install", *EXAMPLE_PACKAGES], log)
    site = next((cache.root / "example-venv" / "lib").glob("python*/site-packages"))
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise BuildError("llama_cpp is not installed in this environment")
    (site / "llama_cpp").symlink_to(Path(spec.origin).parent)
    (site / "sitecustomize.py").write_text(NO_PICTURES)
    run_logged([python, "-c", "import llama_cpp.llama_cpp"], log)
    ready.touch()
