"""One run a line on a machine, and no lock that outlives its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sparring.errors import BusyError, StoreError
from sparring.registry.lock import hold_line

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys, time
from sparring.registry.lock import hold_line
with hold_line(sys.argv[1], sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def holder(url: str, line: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, url, line], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("where", ["folder", "file"])
def test_a_full_disk_is_one_line(where: str, tmp_path: Path) -> None:
    """No byte can be written: where no temporary folder is known yet, and where one is."""
    code = (
        "import resource, signal, sys, tempfile; from pathlib import Path\n"
        "from sparring.cli.common import guarded; from sparring.registry.lock import hold_line\n"
        f"tempfile.tempdir = {str(tmp_path)!r} if {where == 'file'} else None\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "sys.exit(guarded(lambda: hold_line('store', 'main').__enter__()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == StoreError.exit_code and done.stderr.count("\n") == 1, done.stderr
    assert ("no temporary folder" if where == "folder" else "cannot hold the lock") in done.stderr


def test_a_second_run_is_told_who_holds_the_line_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    with holder(url, "main") as other:
        with (
            pytest.raises(BusyError, match=rf"'main' of .* held by process {other.pid} since \d{{4}}-"),
            hold_line(url, "main"),
        ):
            pass
        with hold_line(url, "another"), hold_line(str(tmp_path / "elsewhere"), "main"):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
        with hold_line(url, "main"):
            pass


def test_the_same_folder_spelled_otherwise_is_the_same_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    for other in ("store", "./store/", "link", f"{tmp_path}/x/../store"):
        with hold_line(str(tmp_path / "store"), "main"), pytest.raises(BusyError), hold_line(other, "main"):
            pass


def test_two_endpoints_are_two_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://one")
    with hold_line("s3://bucket/x", "main"):
        with pytest.raises(BusyError), hold_line("s3://bucket/x/", "main"):
            pass
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://two")
        with hold_line("s3://bucket/x", "main"):
            pass


def test_a_line_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), hold_line(str(tmp_path), "main"):
        _ = 1 / 0
    with hold_line(str(tmp_path), "main"):
        pass


def test_children_do_not_keep_the_line(tmp_path: Path) -> None:
    code = "print('ready', flush=True); input()"
    command = [sys.executable, "-c", code]
    with hold_line(str(tmp_path), "main"):
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False)
    with child:
        assert child.stdout is not None
        child.stdout.readline()  # only now has it surely closed what it must not inherit
        with hold_line(str(tmp_path), "main"):
            child.communicate(b"\n")


def test_a_lock_folder_of_somebody_else_is_refused(own_folder: Path, tmp_path: Path) -> None:
    folder = own_folder / f"sparring-locks-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(StoreError, match="is not a folder of this user alone"), hold_line(str(tmp_path), "main"):
        pass
    folder.rmdir()
    (own_folder / "real").mkdir()
    folder.symlink_to(own_folder / "real")
    with pytest.raises(StoreError, match="is not a folder of this user alone"), hold_line(str(tmp_path), "main"):
        pass
    folder.unlink()
    folder.write_bytes(b"")
    with pytest.raises(StoreError, match="cannot make the lock folder"), hold_line(str(tmp_path), "main"):
        pass
