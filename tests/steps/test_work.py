"""The work folders of two stores never meet: their rounds have the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparring.steps.work import work_folder


@pytest.mark.parametrize("named", [True, False])
def test_each_store_and_line_has_a_folder_of_its_own(
    named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if named:
        monkeypatch.setenv("SPARRING_WORK", str(tmp_path / "work"))
    urls = [str(tmp_path / "a"), str(tmp_path / "b"), "s3://bucket/a", "s3://bucket/b"]
    found = [work_folder(url, line) for url in urls for line in ("default", "other")]
    assert len(set(found)) == len(found)
    assert not named or all(folder.is_relative_to(tmp_path / "work") for folder in found)
    monkeypatch.chdir(tmp_path)
    assert work_folder("a", "default") == work_folder(str(tmp_path / "a"), "default")
