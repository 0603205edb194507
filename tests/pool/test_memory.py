"""How much all models may take."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from server.config import PoolConfig
from server.placement import Need
from server.pool import memory
from server.pool.memory import Memory, free_gpus, private_bytes, resident_bytes


class System(NamedTuple):
    available: int = 1000
    total: int = 2000


class Free:
    """So much is free in our group of processes, whatever the system has."""

    def __init__(self, n: int):
        self._n = n

    def __call__(self, available: int, group: Path) -> int:
        assert available == System().available and group
        return self._n


@pytest.fixture(autouse=True)
def system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.psutil, "virtual_memory", System)
    monkeypatch.setattr(memory, "free_ram", Free(900))
    monkeypatch.setattr(memory, "free_gpus", lambda: (100, 200))
    monkeypatch.setattr(memory, "private_bytes", abs)


def config(**settings: Any) -> PoolConfig:
    return PoolConfig.model_validate(settings)


def test_by_default_what_is_free_and_what_ours_take_less_a_margin() -> None:
    assert Memory(config()).total([7, 30]) == Need(900 + 37 - 100, (95, 190))


def test_as_configured() -> None:
    assert Memory(config(ram_budget=5, gpu_budget=[6, 7])).total([7]) == Need(5, (6, 7))


def test_never_less_than_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_ram", Free(3))
    assert Memory(config()).total([]).ram == 0


def test_a_process_and_one_that_has_gone() -> None:
    own, whole = private_bytes(os.getpid()), resident_bytes(os.getpid())
    assert 0 < own < whole <= 2 * psutil.Process().memory_info().rss
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert (private_bytes(child.pid), resident_bytes(child.pid)) == (0, 0)


@pytest.mark.parametrize(
    ("found", "python", "gpus"),
    [
        (False, "print('[5]')", ()),
        (True, "print('some log'); print('[5, 6]')", (5, 6)),
        (True, "raise SystemExit(1)", ()),
    ],
)
def test_llama_cpp_tells_of_the_gpus(
    found: bool, python: str, gpus: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "has_gpu_backend", lambda: found)
    monkeypatch.setattr(memory, "ASK", python)
    assert free_gpus() == gpus


@pytest.mark.parametrize(
    ("files", "has"),
    [
        (["libggml-cpu.so", "libggml-base.so", "libggml.so"], False),
        (["libggml-cpu-haswell.so.0", "libggml-rpc.so", "libggml-blas.so"], False),
        (["libggml-cpu.so", "libggml-cuda.so"], True),
        (["ggml-vulkan.dll"], True),
        ([], False),
    ],
)
def test_a_build_for_gpus_is_known_by_its_files(
    files: list[str], has: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "llama_cpp"
    (package / "lib").mkdir(parents=True)
    (package / "__init__.py").touch()
    for file in files:
        (package / "lib" / file).touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, "llama_cpp", raising=False)
    assert memory.has_gpu_backend() == has
