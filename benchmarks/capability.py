"""Capability scores against lm-evaluation-harness, question by question: `python -m benchmarks capability`.

Ours and lm-eval score the same MMLU rows (log-likelihood of the letters) and the same GSM8K rows (greedy answers, final
number) with the packaged model. lm-eval is no dependency of this project: `--lm-eval PYTHON` names the interpreter of
an environment that has `lm-eval[hf]`; it gets two tasks of its own, written beside the rows, and reads nothing else.

Data: the folder in SPARRING_BENCHMARK_DATA, else `../shared/data` beside the repository.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from sparring.config.run import DataConfig, SuiteSource
from sparring.data.suites import build_suites

ROOT: Final = Path(__file__).parents[1]
_TOKENS: Final = 96
_CHOICE: Final = """
task: ours_choice
dataset_path: json
dataset_kwargs: {data_files: {test: CHOICE_FILE}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question.strip()}}\\nA. {{choices[0]}}\\nB. {{choices[1]}}\\nC. {{choices[2]}}\\nD. {{choices[3]}}\\n\
Answer:"
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: answer
num_fewshot: 0
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
"""Its `tasks/mmlu/default/_default_template_yaml`, on our rows."""
_NUMBER: Final = """
task: ours_number
dataset_path: json
dataset_kwargs: {data_files: {test: NUMBER_FILE}}
test_split: test
output_type: generate_until
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{answer}}"
num_fewshot: 0
generation_kwargs:
  {until: ["Question:", "</s>", "<|im_end|>"], do_sample: false, temperature: 0.0, max_gen_toks: TOKENS}
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    ignore_case: true
    ignore_punctuation: false
    regexes_to_ignore: [",", "\\\\$", "(?s).*#### ", "\\\\.$"]
filter_list:
  - name: strict-match
    filter: [{function: regex, regex_pattern: "#### (\\\\-?[0-9\\\\.\\\\,]+)"}, {function: take_first}]
  - name: flexible-extract
    filter:
      - {function: regex, group_select: -1, regex_pattern: "(-?[$0-9.,]{2,})|(-?[0-9]+)"}
      - {function: take_first}
"""
"""Its `tasks/gsm8k/gsm8k.yaml` without examples, on our rows."""


def main(arguments: Sequence[str]) -> int:
    """Prints the agreement and one JSON line; writes `results/capability.json` unless `--quick`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks capability")
    parser.add_argument("--lm-eval", metavar="PYTHON", default=os.environ.get("SPARRING_LM_EVAL"))
    parser.add_argument("--choice", type=int, default=80, help="MMLU rows")
    parser.add_argument("--number", type=int, default=20, help="GSM8K rows")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args(arguments)
    folder = Path(os.environ.get("SPARRING_BENCHMARK_DATA") or ROOT.parent / "shared" / "data")
    if not given.lm_eval or not (folder / "mmlu").is_dir():
        missing = "no lm-eval: give --lm-eval PYTHON" if folder.is_dir() else "no MMLU: set SPARRING_BENCHMARK_DATA"
        print(json.dumps({"bench": "capability", "skipped": missing}))
        return 0
    sizes = (8, 2) if given.quick else (given.choice, given.number)
    result = compare(folder, given.lm_eval, *sizes)
    if not given.quick:
        (ROOT / "benchmarks" / "results" / "capability.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key not in ("choices", "numbers")}))
    return 0


def compare(folder: Path, python: str, choices: int, numbers: int) -> dict[str, Any]:
    """Both on the same rows: agreement by question and in numbers."""
    rows = suite_rows(folder, choices, numbers)
    with tempfile.TemporaryDirectory(prefix="sparring-lm-eval-") as scratch:
        model = Path(scratch) / "model"
        started = time.perf_counter()
        ours = our_scores(rows, model)
        ours_seconds = time.perf_counter() - started
        started = time.perf_counter()
        theirs = their_scores(rows, model, Path(scratch), python)
        theirs_seconds = time.perf_counter() - started
    choice = [
        _choice(row, mine, them)
        for row, mine, them in zip(rows["choice"], ours["choice"], theirs["choice"], strict=True)
    ]
    number = [
        _number(row, mine, them)
        for row, mine, them in zip(rows["number"], ours["number"], theirs["number"], strict=True)
    ]
    for line in [*choice, *number]:
        print(" ".join(f"{key} {value}" for key, value in line.items() if key not in ("ours_text", "theirs_text")))
    return {
        "bench": "capability",
        "peer": f"lm-evaluation-harness {theirs['version']}",
        "n": {"choice": len(choice), "number": len(number)},
        "checks": {
            "max_abs_loglikelihood_diff": max(row["max_abs_diff"] for row in choice),
            "same_choice": sum(row["ours"] == row["theirs"] for row in choice),
            "accuracy": {
                who: sum(row[who] == row["right"] for row in choice) / len(choice) for who in ("ours", "theirs")
            },
            "same_text": sum(row["ours_text"] == row["theirs_text"] for row in number),
            "same_number": sum(row["ours"] == row["theirs"] for row in number),
            "exact_match": {
                who: sum(row[f"{who}_right"] for row in number) / len(number) for who in ("ours", "theirs")
            },
        },
        "seconds": {"ours": round(ours_seconds, 1), "theirs": round(theirs_seconds, 1)},
        "tokens": _TOKENS,
        "choices": choice,
        "numbers": number,
    }


def suite_rows(folder: Path, choices: int, numbers: int) -> dict[str, list[dict[str, Any]]]:
    """The rows as our suites hold them."""
    sources = [
        SuiteSource(name="mmlu", path=str(folder / "mmlu"), kind="capability", slice="choice", limit=choices),
        SuiteSource(name="gsm8k", path=str(folder / "gsm8k"), kind="capability", slice="number", limit=numbers),
    ]
    table = build_suites(DataConfig(starter_suites=False, suites=sources, max_prompt_chars=6000)).table()
    return {part: [row for row in table.to_pylist() if row["slice"] == part] for part in ("choice", "number")}


def our_scores(rows: dict[str, list[dict[str, Any]]], model: Path) -> dict[str, list[Any]]:
    """Log-likelihoods of the letters and texts of the worked answers. Leaves the model in `model`."""
    import torch

    from sparring.evaluate.capability import letter_scores, number_answers
    from sparring.policy.load import load_policy
    from sparring.policy.packaged import export_packaged

    export_packaged(model)
    policy = load_policy(model)
    with torch.inference_mode():
        choice = [letter_scores(policy, row) for row in rows["choice"]]
    return {
        "choice": choice,
        "number": [text for text, _ in number_answers(policy, rows["number"], tokens=_TOKENS, batch=16)],
    }


def their_scores(rows: dict[str, list[dict[str, Any]]], model: Path, scratch: Path, python: str) -> dict[str, Any]:
    """What lm-eval logged for each row, in order: log-likelihoods, and (text, extracted by filter, right by filter)."""
    tasks = scratch / "tasks"
    tasks.mkdir()
    for part, template in (("choice", _CHOICE), ("number", _NUMBER)):
        file = scratch / f"{part}.jsonl"
        file.write_text("".join(json.dumps(_document(part, row)) + "\n" for row in rows[part]))
        text = template.replace(f"{part.upper()}_FILE", json.dumps(str(file))).replace("TOKENS", str(_TOKENS))
        (tasks / f"{part}.yaml").write_text(text)
    out = scratch / "out"
    command = [python, "-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32"]
    command += ["--tasks", "ours_choice,ours_number", "--include_path", str(tasks), "--device", "cpu"]
    command += ["--batch_size", "1", "--log_samples", "--output_path", str(out)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(scratch / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"lm-eval failed:\n{done.stderr[-2000:]}")
    version = subprocess.run(
        [python, "-c", "import importlib.metadata as m; print(m.version('lm_eval'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    return {"version": version, "choice": _logged_choices(out), "number": _logged_numbers(out)}


def _document(part: str, row: dict[str, Any]) -> dict[str, Any]:
    if part == "choice":
        return {"question": row["prompt"], "choices": row["choices"], "answer": row["answer"]}
    return {"question": row["prompt"], "answer": f"#### {row['target']}"}


def _logged(out: Path, task: str) -> list[dict[str, Any]]:
    (file,) = out.rglob(f"samples_{task}_*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def _logged_choices(out: Path) -> list[list[float]]:
    rows = sorted(_logged(out, "ours_choice"), key=lambda row: int(row["doc_id"]))
    return [[float(answer[0]) for answer in row["filtered_resps"]] for row in rows]


def _logged_numbers(out: Path) -> list[dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for row in _logged(out, "ours_number"):
        one = found.setdefault(row["doc_id"], {"text": row["resps"][0][0]})
        one[row["filter"]] = (row["filtered_resps"][0], row["exact_match"])
    return [found[key] for key in sorted(found)]


def _choice(row: dict[str, Any], ours: list[float], theirs: list[float]) -> dict[str, Any]:
    difference = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    mine, them = (max(range(len(x)), key=x.__getitem__) for x in (ours, theirs))
    margin = sorted(theirs)[-1] - sorted(theirs)[-2]
    return {"id": row["prompt_id"], "right": row["answer"], "ours": mine, "theirs": them,
            "max_abs_diff": difference, "margin": round(margin, 4)}  # fmt: skip


def _number(row: dict[str, Any], ours: str, theirs: dict[str, Any]) -> dict[str, Any]:
    """Theirs by our rule's branch: `strict-match` where the text holds ####, else `flexible-extract`."""
    from sparring.data.numbers import canonical, final_number

    extracted, right = theirs["strict-match" if "####" in theirs["text"] else "flexible-extract"]
    plain = canonical(extracted) if re.search("[0-9]", extracted) else None
    return {
        "id": row["prompt_id"], "right": row["target"], "ours": final_number(ours), "theirs": plain,
        "ours_right": final_number(ours) == row["target"], "theirs_right": bool(right),
        "ours_text": ours, "theirs_text": theirs["text"].strip(),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
