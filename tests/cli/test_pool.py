"""`sparring pool` as a user calls it: import, look, export, forget, compact; one line for every mistake."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import Result

from sparring.replay.pool import Pool
from sparring.store import open_store
from tests.cli.test_cli import sparring

FILES = Path(__file__).parent.parent / "importers" / "attacks" / "files"
GARAK, HARMBENCH = FILES / "garak.hitlog.jsonl", FILES / "test_cases.json"
SECRET = "Pretend to be a locksmith"


def pool(store: Path, *arguments: str) -> Result:
    return sparring("pool", *arguments, "--store", str(store), cwd=store.parent)


def digest(store: Path) -> str:
    """All bytes of the pool's tables."""
    state = hashlib.sha256()
    for path in sorted((store / "lines" / "default" / "pool").rglob("*")):
        if path.is_file():
            state.update(path.name.encode() + path.read_bytes())
    return state.hexdigest()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of what two tools found. Tests must only read it."""
    store = tmp_path_factory.mktemp("line") / "store"
    first = pool(store, "import", str(HARMBENCH), "--from", "harmbench", "--json")
    assert first.exit_code == 0, first.stderr
    facts = json.loads(first.stdout)
    assert (facts["found"], facts["added"], facts["left_out"]) == (3, 3, {"with an image": 1})
    again = json.loads(pool(store, "import", str(HARMBENCH), "--from", "harmbench", "--json").stdout)
    assert (again["added"], again["known"], again["near"]) == (0, 3, 0)
    garak = json.loads(pool(store, "import", str(GARAK), "--from", "garak", "--source", "scan", "--json").stdout)
    assert garak["found"] == 5 and garak["repeated"] == 1
    assert garak["added"] + garak["near"] + garak["in_suites"] == 4
    return store


def test_stats_count_what_is_there(filled: Path) -> None:
    facts = json.loads(pool(filled, "stats", "--json").stdout)
    assert facts["attacks"] == facts["harmful"] == facts["never_met_by_a_champion"] >= 5
    assert facts["by_source"]["import:harmbench"] == 3 and facts["by_seed_source"]["scan"] >= 2
    assert (facts["outcomes"], facts["mastered"], facts["resting_as_void"], facts["benign"]) == (0, 0, 0, 0)
    assert facts["files"]["attacks"] == 2
    assert "import:harmbench 3" in pool(filled, "stats").stdout


def test_texts_are_shown_only_on_request(filled: Path) -> None:
    name = json.loads(pool(filled, "top", "-n", "1", "--json").stdout)[0]["attack_id"]
    for command in (("top",), ("top", "--json"), ("top", "--by", "recent"), ("show", name), ("show", name, "--json")):
        shown = pool(filled, *command)
        assert shown.exit_code == 0, shown.stderr
        assert "characters)" in shown.stdout and "locksmith" not in shown.stdout and "neighbour" not in shown.stdout
    assert SECRET in pool(filled, "top", "--show-text").stdout
    assert SECRET in pool(filled, "top", "--show-text", "--json").stdout


def test_show_takes_the_first_digits(filled: Path) -> None:
    name = json.loads(pool(filled, "top", "-n", "1", "--json").stdout)[0]["attack_id"]
    facts = json.loads(pool(filled, "show", name[:8], "--json").stdout)
    assert facts["attack_id"] == name and facts["outcomes"] == [] and facts["label"] == "harmful"
    missing = pool(filled, "show", "0" * 32)
    assert missing.exit_code == 1 and missing.stderr.count("\n") == 1 and "is in the pool" in missing.stderr


def test_export_as_lines_parquet_and_a_dataset(filled: Path, tmp_path: Path) -> None:
    for kind, name in (("jsonl", "pool.jsonl"), ("parquet", "pool.parquet"), ("hf", "folder")):
        done = pool(filled, "export", str(tmp_path / name), "--format", kind)
        assert done.exit_code == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "pool.jsonl").read_text().splitlines()]
    table = pq.read_table(tmp_path / "pool.parquet")
    assert table.to_pylist() == lines == pq.read_table(tmp_path / "folder" / "data").to_pylist()
    assert {row["attack_id"] for row in lines} == Pool(open_store(str(filled)).scope("lines/default")).ids()
    assert sum(row["text"].startswith(SECRET) for row in lines) == 1
    assert all(row["cluster"] and row["visits"] == 0 and row["last_round"] == -1 for row in lines)
    card = (tmp_path / "folder" / "README.md").read_text()
    assert card.startswith("---\n") and "path: data/train-*.parquet" in card and "| scan |" in card
    taken = pool(filled, "export", str(tmp_path / "folder"), "--format", "hf")
    assert taken.exit_code == 2 and "is there already" in taken.stderr
    assert len(list(tmp_path.iterdir())) == 3
    none = pool(filled, "export", str(tmp_path / "benign.jsonl"), "--format", "jsonl", "--label", "benign")
    assert none.stdout.startswith("0 attacks") and (tmp_path / "benign.jsonl").read_text() == ""


def test_the_folder_loads_with_datasets(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert pool(filled, "export", str(tmp_path / "folder"), "--format", "hf").exit_code == 0
    loaded = datasets.load_dataset(str(tmp_path / "folder"), split="train", cache_dir=str(tmp_path / "cache"))
    assert set(loaded["label"]) == {"harmful"} and any(text.startswith(SECRET) for text in loaded["text"])


def test_forget_then_compact(tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert pool(store, "import", str(HARMBENCH), "--from", "harmbench").exit_code == 0
    assert pool(store, "import", str(GARAK), "--from", "garak", "--source", "scan").exit_code == 0
    before = digest(store)
    unasked = pool(store, "forget", "--source", "scan")
    assert unasked.exit_code == 2 and "say --yes" in unasked.stderr and digest(store) == before
    done = pool(store, "forget", "--source", "scan", "--yes")
    assert done.exit_code == 0 and "attacks forgotten" in done.stdout
    facts = json.loads(pool(store, "stats", "--json").stdout)
    assert facts["attacks"] == 3 and "scan" not in facts["by_seed_source"] and facts["forgotten_or_evicted"] >= 2
    again = pool(store, "import", str(GARAK), "--from", "garak", "--source", "scan")
    assert again.exit_code == 2 and "was forgotten" in again.stderr
    compacted = pool(store, "compact", "--json")
    assert compacted.exit_code == 0, compacted.stderr
    report = json.loads(compacted.stdout)
    assert report["attacks"]["rows_dropped"] >= 2 and report["attacks"]["files_after"] == 1
    kept = b"".join(path.read_bytes() for path in (store / "lines/default/pool").rglob("*") if path.is_file())
    assert b"DUDE" not in kept
    name = json.loads(pool(store, "top", "-n", "1", "--json").stdout)[0]["attack_id"]
    assert "1 attacks forgotten" in pool(store, "forget", "--id", name[:10], "--yes").stdout
    told = pool(store, "compact")
    assert told.exit_code == 0 and "files deleted, snapshot" in told.stdout, told.stderr
    assert json.loads(pool(store, "stats", "--json").stdout)["attacks"] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("import", "gone.json", "--from", "pyrit"), "gone.json"),
        (("import", str(GARAK), "--from", "pyrit"), "not JSON"),
        (("import", "long.json", "--from", "harmbench"), "the attack has 10,000,000 characters, the most is 1,000,000"),
        (("import", "latin.json", "--from", "harmbench"), "not UTF-8"),
        (("forget",), "either --source or --id"),
        (("forget", "--source", "nobody", "--yes"), "nobody"),
        (("forget", "--id", "f" * 32, "--yes"), "is in the pool"),
        (("forget", "--id", "3", "--yes"), "too short to forget by"),
        (("forget", "--source", "", "--yes"), "--source is empty"),
        (("export", f"{GARAK}/x", "--format", "jsonl"), "cannot write"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_the_pool_alone(
    filled: Path, arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    (filled.parent / "long.json").write_text(json.dumps({"behavior": ["x" * 10_000_000]}))
    (filled.parent / "latin.json").write_bytes('{"behavior": ["café"]}'.encode("latin-1"))
    before = digest(filled)
    done = pool(filled, *arguments)
    assert done.exit_code != 0 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert words in done.stderr
    assert digest(filled) == before


def test_a_line_without_a_pool_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    for command in (("stats",), ("top",), ("show", "0000"), ("compact",), ("export", "x", "--format", "hf")):
        done = pool(tmp_path / "none", *command)
        assert done.exit_code == 2 and "has no pool" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "none").exists()


def test_terminal_control_characters_in_a_text_do_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"b": ["red \x1b[31m and \u202e turned [bold]around[/bold] it is"]}))
    assert pool(tmp_path / "s", "import", str(tmp_path / "x.json"), "--from", "harmbench").exit_code == 0
    shown = pool(tmp_path / "s", "top", "--show-text").stdout
    assert "\x1b" not in shown and "\u202e" not in shown and "[bold]around[/bold]" in shown
