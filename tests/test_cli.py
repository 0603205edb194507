"""The CLI: what it prints, how it refuses, and a server of its own that is started and stopped."""

import gc
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from server import __version__
from server.command_line import app

ROOT = Path(__file__).resolve().parent.parent


def corral(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration whose only model has no file."""
    path = tmp_path / "c.yaml"
    path.write_text("server: {port: 0}\nmodels: {gone: {path: gone.gguf}}")
    return path


def test_version() -> None:
    result = corral("--version")
    assert (result.exit_code, result.stdout) == (0, f"corral {__version__}\n")


def test_nothing_heavy_is_imported_before_a_command_needs_it() -> None:
    heavy = "{'fastapi', 'uvicorn', 'pydantic', 'numpy', 'llama_cpp', 'yaml', 'huggingface_hub'}"
    code = f"import sys, server.__main__; print(sorted({heavy} & sys.modules.keys()))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout == "[]\n"


def test_the_collector_rests_only_while_the_server_is_imported(tmp_path: Path) -> None:
    assert corral("serve", "--config", str(tmp_path / "none.yaml")).exit_code == 2
    assert gc.isenabled()


def test_without_a_command_there_is_help() -> None:
    result = corral()
    commands = (
        "serve chat run eval models plan template pull quantize bench-quants rpc-server config"
    )
    for command in commands.split():
        assert command in result.output


def test_config_prints_the_file_of_the_project() -> None:
    result = corral("config")
    assert (result.exit_code, result.stdout) == (0, (ROOT / "config.yaml").read_text())


def test_models_says_what_the_files_say(model_path: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"server: {{port: 0}}\nmodels: {{demo: {{path: {model_path}}}}}")
    result = corral("models", "--config", str(config))
    assert result.exit_code == 0
    lines = {line.split()[0]: line.split() for line in result.stdout.splitlines()}
    assert lines["demo"][:5] == ["demo", "Q4_1", "5.85", "93.8MiB", "8,192"]
    result = corral("models", "--config", str(config), "--json")
    (row,) = json.loads(result.stdout)
    assert (row["path"], row["size_bytes"]) == (str(model_path), model_path.stat().st_size)


@pytest.mark.parametrize("command", ["serve", "models"])
def test_a_missing_config_is_told(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = corral(command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"there is no config.yaml in {tmp_path}" in result.stderr


def test_config_yaml_is_found_where_one_stands(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    file.rename(file.with_name("config.yaml"))
    result = corral("models")
    assert result.exit_code == 0
    assert "gone" in result.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("server: {prot: 1}", "unknown key server.prot"),
        ("server: [", "not YAML"),
        ("server: {port: 1}", "no models are configured"),
    ],
)
def test_a_bad_config_ends_with_a_message_and_status_2(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    result = corral("serve", "--config", str(path))
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_the_command_line_is_checked_like_the_file(file: Path) -> None:
    result = corral("serve", "--config", str(file), "--port", "70000")
    assert result.exit_code == 2
    assert "server.port: Input should be less than or equal to 65535" in result.stderr


def test_quants_are_made_and_compared(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("A horse is a horse, of course, of course, and nobody talks.")
    options = ("--requantize", "--threads", "1", "--out-dir", str(tmp_path))
    made = corral("quantize", str(model_path), "--to", "Q4_0", *options)
    assert made.exit_code == 0
    path = tmp_path / "SmolLM2-135M-Instruct.Q4_0.gguf"
    assert str(path) in made.stdout
    options = ("--ctx", "8", "--pieces", "1", "--threads", "1")
    compared = corral("bench-quants", str(path), "--text", str(tmp_path / "text"), *options)
    assert compared.exit_code == 0
    assert "3 tokens scored" in compared.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("quantize", "gone.gguf", "--to", "Q8_0"), "gone.gguf: No such file or directory"),
        (("bench-quants", "a.gguf", "--text", "gone.txt"), "gone.txt: No such file or directory"),
    ],
)
def test_a_command_that_fails_ends_with_a_message_and_status_1(
    arguments: tuple[str, ...], message: str
) -> None:
    result = corral(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"corral: {message}\n"


def test_a_port_in_use_is_told(file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = corral("serve", "--config", str(file), "--port", str(port))
    assert result.exit_code == 1
    assert result.stderr == f"corral: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_a_host_that_is_not_ours_is_told(file: Path) -> None:
    result = corral("serve", "--config", str(file), "--host", "192.0.2.1", "--port", "0")
    assert result.exit_code == 1
    assert result.stderr.startswith("corral: cannot listen on 192.0.2.1:0: ")


@pytest.fixture
def served(file: Path) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """A running `corral serve`: its process, its URL, and its lines up to where it serves."""
    command = [sys.executable, "-m", "server", "serve", "--config", str(file)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines: list[str] = []
        for line in process.stderr:
            lines.append(line)
            if "try: curl" in line:
                break
        try:
            yield process, lines[-2].split()[-1], lines
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)]
)
def test_a_server_says_where_it_is_and_stops_on_a_signal(
    served: tuple[subprocess.Popen[str], str, list[str]], number: signal.Signals, status: int
) -> None:
    process, url, lines = served
    assert process.stderr is not None
    assert f"corral {__version__} serves gone at http://127.0.0.1:" in lines[-2]
    assert f"curl {url}/chat/completions" in lines[-1]
    assert '"model": "gone"' in lines[-1]
    assert httpx.get(f"{url}/models").json()["data"][0]["id"] == "gone"
    process.send_signal(number)
    rest = process.stderr.read()
    assert process.wait() == status
    assert "Traceback" not in rest
