"""What is free, on this machine and in a container."""

import importlib
import mmap
import os
import sys
from pathlib import Path

import psutil
import pytest

from server.pool import machine
from server.pool.machine import free, free_gpus, free_ram, room, taken, watch


@pytest.mark.parametrize(
    ("limit", "used", "free"),
    [
        ("max", "100", 1000),
        ("5000", "100", 1000),
        ("600", "100", 500),
        ("600", "700", 0),
        (None, None, 1000),
    ],
)
def test_a_containers_limit_counts(
    tmp_path: Path, limit: str | None, used: str | None, free: int
) -> None:
    if limit is not None and used is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")
    assert free_ram(1000, tmp_path) == free


def test_pages_of_files_can_go(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("600")
    (tmp_path / "memory.current").write_text("500")
    (tmp_path / "memory.stat").write_text("anon 90\nfile 400\nshmem 150\nfile_mapped 30\n")
    assert free_ram(1000, tmp_path) == 600 - (500 - 250)


def test_this_machine_has_room() -> None:
    found = room()
    assert 0 < found.ram <= psutil.virtual_memory().total
    assert found.vram == sum(free_gpus()) >= 0
    assert free().gpus == free_gpus()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells which pages are read")
def test_pages_of_a_file_count_when_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(8 * 2**20))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        sum(data[::4096])
        all_of_it = taken(os.getpid(), path)
        watch(os.getpid())
        sum(data[: 2**20 : 4096])
        a_part = taken(os.getpid(), path)
    assert all_of_it.mapped == a_part.mapped == all_of_it.read == 8 * 2**20
    assert 2**20 <= a_part.read < 4 * 2**20
    assert a_part.needed == a_part.own + a_part.read
    assert taken(os.getpid(), path)[1:] == (0, 0)


def test_elsewhere_all_that_is_resident_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(_: Path) -> bool:
        return False

    monkeypatch.setattr(Path, "exists", nowhere)
    own, *of_the_file = taken(os.getpid(), Path("x"))
    assert own == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)
    assert of_the_file == [0, 0]


@pytest.mark.parametrize(
    ("found", "python", "gpus"),
    [
        (False, "print(5)", ()),
        (True, "print('some log'); print(5, 6)", (5, 6)),
        (True, "raise SystemExit(1)", ()),
    ],
)
def test_llama_cpp_tells_of_the_gpus(
    found: bool, python: str, gpus: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "has_gpu_backend", lambda: found)
    monkeypatch.setattr(machine, "ASK", python)
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
    assert machine.has_gpu_backend() == has
