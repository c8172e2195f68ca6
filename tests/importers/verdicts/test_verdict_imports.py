"""Every fixture of a real tool imports to exactly these rows, and two runs of one evaluation line up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sparring.errors import DataError, InvalidEvaluation
from sparring.evaluate.tables import KEY
from sparring.importers.verdicts import IMPORTERS, Options, import_verdicts, load_mapping
from sparring.importers.verdicts.table import join
from tests.importers.verdicts.grown import FILES, ROLES

LABELS = ("refused", "harmful", "passed", "degenerate", "score")
YES, NO, NONE = True, False, None


def table(tool: str, *names: str, **options: Any) -> pa.Table:
    return import_verdicts(tool, [FILES / name for name in names], Options(**options)).table


def rows(found: pa.Table) -> list[tuple[Any, ...]]:
    """Slice, answer index, status and labels."""
    names = ("slice", "answer_index", "status", *LABELS)
    return [tuple(row[name] for name in names) for row in found.to_pylist()]


def mapped(tmp_path: Path, text: str) -> Options:
    path = tmp_path / "mapping.yaml"
    path.write_text(text)
    return Options(mapping=load_mapping(path))


def lm_eval(role: str, task: str) -> str:
    return str(next((FILES / "lm_eval" / role).glob(f"samples_{task}_*")).relative_to(FILES))


def test_inspect_own_labels_both_formats() -> None:
    refused = ("ok", YES, NO, NONE, NO, NONE)
    harmful = ("ok", NO, YES, NONE, NO, NONE)
    found = table("inspect", "inspect/candidate/harm.eval")
    assert rows(found) == [
        ("plain", 0, "ok", YES, NONE, NO, NO, NONE),
        ("plain", 0, "ok", YES, NONE, NO, NO, NONE),
        *[("vanilla", 0, *refused)] * 4,
        ("plain", 1, "ok", NO, NONE, YES, NO, NONE),
        ("plain", 1, "ok", NO, NONE, YES, NO, NONE),
        *[("vanilla", 1, *refused)] * 2,
        *[("vanilla", 1, *harmful)] * 2,
    ]
    first, *others = found.to_pylist()
    assert first["suite"] == "harm" and first["label"] == first["kind"] == "benign" and first["tokens"] == 10
    assert [row["behavior"] for row in others[1:5]] == ["lock", "lock", "note", "bottles"]
    assert first["model"].startswith("mockllm/candidate#") and "inspect@0.3.285 safety" in first["judge"]
    champion = table("inspect", "inspect/champion/harm.json")
    log = json.loads((FILES / "inspect/champion/harm.json").read_text())
    said = [sample["scores"]["safety"]["value"] for sample in log["samples"]]
    expected = [value["harmful"] if sample["metadata"]["label"] == "harmful" else None
               for value, sample in zip(said, log["samples"], strict=True)]  # fmt: skip
    assert champion["harmful"].to_pylist() == expected and champion["harmful"].to_pylist().count(True) == 4
    assert champion["refused"].to_pylist() == [value["refused"] for value in said]
    assert champion["status"].to_pylist() == ["ok"] * 12


def test_inspect_errors_and_unparsable_grades_are_void(tmp_path: Path) -> None:
    rule = "rules: [{kind: capability, slice: number, labels: {score: {from: breaks}}}]"
    broken = import_verdicts("inspect", [FILES / "inspect/candidate/broken.json"], mapped(tmp_path, rule))
    assert rows(broken.table) == [
        *[("number", 0, "ok", NONE, NONE, NONE, NONE, 1.0)] * 2,
        ("number", 0, "void", NONE, NONE, NONE, NONE, NONE),
        ("number", 0, "ok", NONE, NONE, NONE, NONE, 1.0),
    ]
    assert broken.voids == {"capability/number: the sample ended in an error": 1}

    rule = """
rules:
  - kind: harmful
    slice: jailbreak
    labels:
      harmful: {from: model_graded_qa, positive: [I], negative: [C], void: [P]}
      refused: {from: model_graded_qa, positive: [C], negative: [I, P]}
"""
    graded = import_verdicts("inspect", [FILES / "inspect/candidate/graded.eval"], mapped(tmp_path, rule))
    assert rows(graded.table) == [
        ("jailbreak", 0, "ok", YES, NO, NONE, NO, NONE),
        ("jailbreak", 0, "void", NONE, NONE, NONE, NONE, NONE),  # P
        ("jailbreak", 0, "void", NONE, NONE, NONE, NONE, NONE),  # NaN: no grade in the grader's text
        ("jailbreak", 0, "ok", NO, YES, NONE, NO, NONE),
    ]
    assert "model_graded_qa by mockllm/grader" in graded.table["judge"][0].as_py()


def test_inspect_scores_are_numbers(tmp_path: Path) -> None:
    assert table("inspect", "inspect/candidate/sums.eval")["score"].to_pylist() == [1.0, 1.0]
    assert table("inspect", "inspect/champion/sums.eval")["score"].to_pylist() == [0.0, 1.0]
    rule = "rules: [{kind: capability, slice: number, labels: {score: {from: exact}}}]"
    words = import_verdicts("inspect", [FILES / "inspect/candidate/words.json"], mapped(tmp_path, rule))
    assert words.table["score"].to_pylist() == [0.0, 1.0]


def test_a_grade_is_never_taken_for_a_label_by_itself() -> None:
    """C may mean refused as well as complied: without a mapping every row is void."""
    done = import_verdicts("inspect", [FILES / "inspect/candidate/graded.eval"], Options())
    assert done.table["status"].to_pylist() == ["void"] * 4
    assert "nothing says `harmful`" in next(iter(done.voids))
    with pytest.raises(DataError, match=r"words.json: sample 1 .*its kind is not known; say --kind"):
        table("inspect", "inspect/candidate/words.json")


def test_a_run_that_ended_in_an_error_is_refused_or_void() -> None:
    with pytest.raises(DataError, match=r"status is 'error', not success; finish the run, or say --partial"):
        table("inspect", "inspect/candidate/stops.json", kind="harmful")
    found = table("inspect", "inspect/candidate/stops.json", kind="harmful", partial=True)
    assert found["status"].to_pylist() == ["void"] * found.num_rows
    assert all(found[label].null_count == found.num_rows for label in LABELS)


def test_lm_eval_choice_and_numbers(tmp_path: Path) -> None:
    found = table("lm-eval", lm_eval("candidate", "tiny_choice"))
    assert found["score"].to_pylist() == [1.0, 0.0, 0.0]
    assert set(found["slice"].to_pylist()) == {"choice"} and set(found["kind"].to_pylist()) == {"capability"}
    assert found["judge"][0].as_py() == "lm-eval@0.4.13 tiny_choice filter none [score=acc]"
    with pytest.raises(DataError, match=r"'tiny_sums' has 2 filters \(plain, strict\); choose in a mapping"):
        table("lm-eval", lm_eval("candidate", "tiny_sums"))
    options = mapped(tmp_path, "rules: [{match: tiny_sums, filter: strict}]")
    sums = import_verdicts("lm-eval", [FILES / lm_eval("candidate", "tiny_sums")], options).table
    assert rows(sums) == [("number", 0, "ok", NONE, NONE, NONE, NONE, 0.0)] * 3


def test_lm_eval_needs_the_results_beside_the_samples(tmp_path: Path) -> None:
    real = FILES / lm_eval("candidate", "tiny_choice")
    alone = tmp_path / real.name
    shutil.copy(real, alone)
    with pytest.raises(DataError, match=r"results_.*json is not beside it"):
        import_verdicts("lm-eval", [alone], Options(model="m"))
    void = import_verdicts("lm-eval", [alone], Options(model="m", partial=True)).table
    assert void["status"].to_pylist() == ["void"] * 3
    results = real.name.replace("samples_tiny_choice", "results")[:-1]
    shutil.copy(real.with_name(results), tmp_path / results)
    alone.write_text("".join(real.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(DataError, match=r"2 samples, .* says 3"):
        import_verdicts("lm-eval", [alone], Options(model="m"))


def test_garak_outputs_of_the_primary_detector() -> None:
    found = table("garak", "garak/champion/run.report.jsonl", phrases=True)
    answered = ("ok", NO, NO, NONE, NO, NONE)
    hit = ("ok", NO, YES, NONE, NO, NONE)
    void = ("void", NONE, NONE, NONE, NONE, NONE)
    per_prompt = [answered, hit, answered, hit, void, answered, answered]
    assert rows(found) == [("adversarial", i, *row) for row in per_prompt for i in (0, 1)]
    assert set(found["behavior"].to_pylist()) == {"garak:goodside.WhoIsRiley", "garak:lmrc.QuackMedicine"}
    candidate = table("garak", "garak/candidate/run.report.jsonl", phrases=True)
    assert rows(candidate) == [("adversarial", i, "ok", YES, NO, NONE, NO, NONE) for _ in range(7) for i in (0, 1)]
    silent = import_verdicts("garak", [FILES / "garak/candidate/run.report.jsonl"], Options())
    assert silent.table["status"].to_pylist() == ["void"] * 14
    assert "--refusals phrases" in next(iter(silent.voids))
    with pytest.raises(DataError, match=r"hit log.*give the \*\.report\.jsonl"):
        table("garak", "garak/champion/run.hitlog.jsonl")


def test_garak_prompts_that_name_the_target_are_the_same_prompt(tmp_path: Path) -> None:
    ids = []
    for role in ROLES:
        text = (FILES / f"garak/{role}/run.report.jsonl").read_text()
        path = tmp_path / f"{role}.report.jsonl"
        path.write_text(text.replace("Tell me about Riley", f"Hello, answers#{role}. You are DAN. Tell me about Riley"))
        ids.append(import_verdicts("garak", [path], Options()).table["prompt_id"].to_pylist())
    assert ids[0] == ids[1]


def test_garak_mitigation_bypass_says_refused(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (FILES / "garak/candidate/run.report.jsonl").read_text().splitlines()]
    for entry in list(lines):
        if entry.get("status") == 2:
            entry["detector_results"]["mitigation.MitigationBypass"] = [0.0, 1.0]
        elif entry["entry_type"] == "eval":
            lines.append(entry | {"detector": "mitigation.MitigationBypass"})
    path = tmp_path / "x.report.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = import_verdicts("garak", [path], Options()).table
    assert found["refused"].to_pylist() == [True, False] * 7
    assert found["harmful"].to_pylist() == [False] * 14


def test_harmbench_unclear_labels_are_void() -> None:
    found = table("harmbench", "harmbench/champion/results.json", model="b" * 64, judge="cais/HarmBench-13b-cls")
    assert rows(found) == [
        ("adversarial", 0, "ok", NO, YES, NONE, NO, NONE),
        ("adversarial", 0, "ok", YES, NO, NONE, NO, NONE),
        ("adversarial", 0, "ok", YES, NO, NONE, NO, NONE),
        ("adversarial", 0, "void", NONE, NONE, NONE, NONE, NONE),
    ]
    assert found["behavior"].to_pylist() == ["lock_picking", "lock_picking", "mean_note", "bottles_mixed"]
    assert found["judge"][0].as_py().startswith("harmbench-classifier cais/HarmBench-13b-cls [")
    with pytest.raises(DataError, match="no file names the model; say --model"):
        table("harmbench", "harmbench/champion/results.json")
    with pytest.raises(DataError, match="completions without labels"):
        table("harmbench", "harmbench/champion/completions.json", model="m")


@pytest.mark.parametrize(
    "tool, name, options",
    [
        ("inspect", "inspect/{}/sums.eval", {}),
        ("garak", "garak/{}/run.report.jsonl", {"phrases": True}),
        ("harmbench", "harmbench/{}/results.json", {"model": "m"}),
        ("lm-eval", "lm_eval/{}/samples_tiny_choice_*", {}),
    ],
)
def test_two_runs_line_up(tool: str, name: str, options: dict[str, Any]) -> None:
    shared = [*KEY, "kind", "behavior", "label", "judge"]
    paths = [next(FILES.glob(name.format(role))) for role in ROLES]
    mine, theirs = (import_verdicts(tool, [path], Options(**options)).table.select(shared) for path in paths)
    assert mine.sort_by([(key, "ascending") for key in KEY]).equals(theirs.sort_by([(key, "ascending") for key in KEY]))


def test_inspect_formats_line_up() -> None:
    """A `.eval` of one model and a `.json` of the other."""
    keys = [
        sorted(zip(*(found[key].to_pylist() for key in KEY), strict=True))
        for found in (table("inspect", "inspect/candidate/harm.eval"), table("inspect", "inspect/champion/harm.json"))
    ]
    assert keys[0] == keys[1]


def test_tools_join_into_one_table() -> None:
    parts = [
        table("inspect", "inspect/candidate/harm.eval", model="m"),
        table("inspect", "inspect/candidate/sums.eval", model="m"),
        table("harmbench", "harmbench/candidate/results.json", model="m"),
        table("lm-eval", lm_eval("candidate", "tiny_choice"), model="m"),
    ]
    joined = join(parts)
    assert joined.num_rows == sum(part.num_rows for part in parts)
    assert len(joined["judge"].unique()) == 2
    assert join([join(parts[:2])]).equals(join(parts[:2]))
    with pytest.raises(InvalidEvaluation, match="rows for one answer"):
        join([parts[0], parts[0]])
    with pytest.raises(InvalidEvaluation, match="`model` holds 2 values"):
        join([parts[0], table("harmbench", "harmbench/candidate/results.json", model="other")])


def test_one_file_twice_is_refused_and_one_prompt_twice_is_two_answers(tmp_path: Path) -> None:
    name = "harmbench/champion/results.json"
    with pytest.raises(DataError, match=r"one answer stands in two files: .*give each file once"):
        table("harmbench", name, name, model="m")
    document = json.loads((FILES / name).read_text())
    document["mean_note"] *= 3
    path = tmp_path / "results.json"
    path.write_text(json.dumps(document))
    found = import_verdicts("harmbench", [path], Options(model="m")).table
    assert [row["answer_index"] for row in found.to_pylist() if row["behavior"] == "mean_note"] == [0, 1, 2]


def test_files_about_two_models_are_refused() -> None:
    paths = [FILES / f"inspect/{role}/sums.eval" for role in ROLES]
    with pytest.raises(DataError, match=r"2 models or settings .*import each model by itself"):
        import_verdicts("inspect", paths, Options())


def test_importers_are_named() -> None:
    assert sorted(IMPORTERS) == ["garak", "harmbench", "inspect", "lm-eval"]
