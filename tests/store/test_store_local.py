"""What a folder adds: full disks, missing rights, files in the way, and writers killed at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sparring.errors import NotFoundError, StoreError
from sparring.store.local import LocalStore

ROOT = Path(__file__).parents[2]
NOBODY = 65534


def run_script(body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter with the package on its path."""
    code = "import sys\nfrom pathlib import Path\nfrom sparring.store.local import LocalStore\n" + textwrap.dedent(body)
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


REPORT = """
from sparring.errors import StoreError
store = LocalStore(Path(sys.argv[1]))
source = Path(sys.argv[2])
for call in (
    lambda: store.put("big", bytes(1_000_000)),
    lambda: store.put_if_absent("big", bytes(1_000_000)),
    lambda: store.upload(source, "big"),
    lambda: store.download("small", Path(sys.argv[1]) / "copy"),
):
    try:
        call()
        print("no error")
    except StoreError as error:
        print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_is_one_clear_line_and_leaves_the_store_whole(tmp_path: Path) -> None:
    folder = tmp_path / "full"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("this machine does not permit mounting")
    try:
        store = LocalStore(folder / "store")
        store.put("small", b"before")
        source = tmp_path / "source"
        source.write_bytes(bytes(1_000_000))
        calls: list[Callable[[], object]] = [
            lambda: store.put("small", bytes(1_000_000)),
            lambda: store.put_if_absent("new", bytes(1_000_000)),
            lambda: store.upload(source, "small"),
        ]
        for call in calls:
            with pytest.raises(StoreError, match="No space left on device; free some space"):
                call()
        assert store.list() == ["small"]
        assert store.get("small") == b"before"
        assert list((folder / "store" / ".tmp").iterdir()) == []
        assert store.put_if_absent("new", b"fits")
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_file_size_limit_is_one_clear_line(tmp_path: Path) -> None:
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    store, source = LocalStore(tmp_path / "store"), tmp_path / "source"
    store.put("small", b"before")
    source.write_bytes(bytes(1_000_000))
    done = run_script(limit + REPORT, str(tmp_path / "store"), str(source))
    lines = done.stdout.splitlines()
    assert [line.endswith("File too large; the file size limit (ulimit -f) is too small") for line in lines[:3]] == [
        True
    ] * 3, done
    assert store.list() == ["copy", "small"]


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root; without it, see the next test")
def test_a_store_of_another_user(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:  # every user may enter it, unlike tmp_path
        Path(folder).chmod(0o755)
        store, source = LocalStore(Path(folder) / "store"), Path(folder) / "source"
        store.put("small", b"before")
        source.write_bytes(b"x")
        done = run_script(f"import os\nos.setuid({NOBODY})\n" + REPORT, str(Path(folder) / "store"), str(source))
        assert store.list() == ["small"]
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done
    assert all("Permission denied; give this user the right" in line for line in lines), done


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    folder.chmod(0)
    store = LocalStore(folder)
    try:
        calls: list[Callable[[], object]] = [
            lambda: store.put("a", b""),
            lambda: store.put_if_absent("a", b""),
            lambda: store.get("a"),
            lambda: store.exists("a"),
            lambda: store.list(),
        ]
        for call in calls:
            with pytest.raises(StoreError, match="Permission denied") as caught:
                call()
            assert not isinstance(caught.value, NotFoundError)
    finally:
        folder.chmod(0o700)


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    for store in (LocalStore(tmp_path / "file"), LocalStore(tmp_path / "file" / "below")):
        with pytest.raises(StoreError, match="a file stands where the store needs a folder"):
            store.put("a", b"")
        with pytest.raises(StoreError, match="a file stands where the store needs a folder"):
            store.put_if_absent("a", b"")
        assert store.list() == []
        assert not store.exists("a")
    store = LocalStore(tmp_path / "store")
    store.put("a", b"1")
    with pytest.raises(StoreError, match="a file stands where the store needs a folder"):
        store.put_if_absent("a/b", b"")
    store.put("c/d", b"1")
    with pytest.raises(StoreError, match="a folder stands where the store needs a file"):
        store.put("c", b"")
    with pytest.raises(StoreError, match="a folder stands where the store needs a file"):
        store.put_if_absent("c", b"")
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert store.list() == ["a", "c/d"]


def test_files_under_way_are_no_objects(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a", b"1")
    (tmp_path / ".tmp" / "half").write_bytes(b"half")
    assert store.list() == ["a"]
    assert store.list(".t") == []
    with pytest.raises(StoreError, match=r"\.tmp"):
        store.get(".tmp/half")
    store.scope("lines").put(".tmp/fine", b"1")
    assert store.list() == ["a", "lines/.tmp/fine"]


def test_leftovers_of_killed_writers_are_removed_and_living_ones_kept(tmp_path: Path) -> None:
    store, source = LocalStore(tmp_path / "store"), tmp_path / "source"
    source.write_bytes(b"x")
    store.put("a", b"1")
    folder = tmp_path / "store" / ".tmp"
    hold = """
    import fcntl, os, time
    file = open(sys.argv[1], "xb")
    fcntl.flock(file, fcntl.LOCK_EX)
    print("held", flush=True)
    time.sleep(60)
    """
    code = "import sys\n" + textwrap.dedent(hold)
    with subprocess.Popen([sys.executable, "-c", code, str(folder / "held")], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        for name in ("dead", "fresh"):
            (folder / name).write_bytes(b"half")
        old = time.time() - 7200
        for name in ("dead", "held"):
            os.utime(folder / name, (old, old))
        store.upload(source, "b")
        assert sorted(path.name for path in folder.iterdir()) == ["fresh", "held"]
        writer.kill()
        writer.wait()
        store.upload(source, "b")
        assert [path.name for path in folder.iterdir()] == ["fresh"]


def test_a_write_never_touches_the_bytes_that_are_there(tmp_path: Path) -> None:
    """A reader that opened the old object reads it to its end."""
    store, source, copy = LocalStore(tmp_path / "store"), tmp_path / "source", tmp_path / "copy"
    source.write_bytes(b"newer")
    store.put("object", b"old")
    copy.write_bytes(b"old")
    writes: list[tuple[Callable[[], object], Path]] = [
        (lambda: store.put("object", b"new"), tmp_path / "store" / "object"),
        (lambda: store.upload(source, "object"), tmp_path / "store" / "object"),
        (lambda: store.download("object", copy), copy),
    ]
    for write, path in writes:
        before = path.read_bytes()
        with path.open("rb") as reader:
            write()
            assert reader.read() == before
        assert path.read_bytes() != before


DYING = """
import os, signal
import sparring.store.files, sparring.store.local
def die(file):
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
sparring.store.local.settle = sparring.store.files.settle = die
store, source = LocalStore(Path(sys.argv[1])), Path(sys.argv[2])
{
    "put": lambda: store.put("object", b"new"),
    "claim": lambda: store.put_if_absent("claimed", b"new"),
    "upload": lambda: store.upload(source, "object"),
    "download": lambda: store.download("object", source),
}[sys.argv[3]]()
"""


@pytest.mark.parametrize("call", ["put", "claim", "upload", "download"])
def test_a_writer_killed_before_its_bytes_are_safe_has_written_nothing(tmp_path: Path, call: str) -> None:
    store, source = LocalStore(tmp_path / "store"), tmp_path / "source"
    store.put("object", b"old")
    source.write_bytes(b"source")
    assert run_script(DYING, str(tmp_path / "store"), str(source), call).returncode == -signal.SIGKILL
    assert store.list() == ["object"]
    assert store.get("object") == b"old"
    assert source.read_bytes() == b"source"
    assert store.put_if_absent("claimed", b"mine")


WRITER = """
store = LocalStore(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    for letter in (b"a", b"b"):
        store.put("object", letter * 3_000_000)
"""


def test_a_killed_writer_leaves_the_old_or_the_new_object_whole(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("object", b"a" * 3_000_000)
    code = "import sys\nfrom pathlib import Path\nfrom sparring.store.local import LocalStore\n" + WRITER
    for milliseconds in (1, 7, 23, 41, 60):
        with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(milliseconds / 1000)
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        data = store.get("object")
        assert len(data) == 3_000_000
        assert data in (b"a" * 3_000_000, b"b" * 3_000_000)
        assert store.list() == ["object"]


def test_a_reader_never_sees_half_an_object(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    code = "import sys\nfrom pathlib import Path\nfrom sparring.store.local import LocalStore\n" + WRITER
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        while not store.exists("object"):
            time.sleep(0.001)
        for _ in range(100):
            data = store.get("object")
            assert len(data) == 3_000_000
            assert data[:1] == data[-1:]
        writer.kill()
