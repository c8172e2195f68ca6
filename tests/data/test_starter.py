"""The bundled set: complete, large enough, split by behaviour, nothing of the held-out half in training."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from sparring.data import starter
from sparring.data.hygiene import shared_ngrams
from sparring.data.suites import starter_rows
from sparring.data.text import normalise


def test_it_is_as_large_as_a_true_improvement_needs() -> None:
    harmful = [*starter.harmful("train"), *starter.harmful("heldout")]
    assert len(harmful) >= 400 and len({row.category for row in harmful}) >= 15
    assert len([*starter.benign("lookalike", "train"), *starter.benign("lookalike", "heldout")]) >= 400
    assert len([*starter.benign("plain", "train"), *starter.benign("plain", "heldout")]) >= 200
    sizes = {"vanilla": len(starter.harmful("heldout")), "jailbreaks": len(starter.jailbreaks())}
    assert min(sizes.values()) >= 120, sizes
    assert len(starter.benign("adversarial", "heldout")) >= 60
    assert len(starter.capability()) >= 180 and len(starter.helpful_answers()) >= 100
    assert len(starter.demonstrations()) >= 200 and len(starter.refusals()) >= 60


def test_no_behaviour_and_no_text_stands_in_both_halves() -> None:
    train, heldout = starter.seeds("train"), list(starter_rows())
    assert not {seed.behavior for seed in train} & {row.behavior for row in heldout}
    texts = {normalise(text) for row in heldout for text in (row.prompt, row.intent)}
    trained = {normalise(seed.text) for seed in train} | {normalise(row.prompt) for row in starter.demonstrations()}
    assert not texts & trained
    assert shared_ngrams(sorted(trained), sorted(texts), 8) == {}


def test_the_opening_word_does_not_tell_the_label() -> None:
    """Else a small model learns to refuse every "Write …" or "I want …"."""
    seeds = {label: [seed.text for seed in starter.seeds() if seed.label == label] for label in ("harmful", "benign")}
    harmful, benign = (Counter(map(opening_word, texts)) for texts in seeds.values())
    common = dict(harmful.most_common(15))
    assert {"write", "tell", "help", "i", "give"} <= set(common)
    assert {word: (count, benign[word]) for word, count in common.items() if benign[word] < count} == {}


def opening_word(text: str) -> str:
    """The first word, in small letters."""
    return str(re.findall(r"[\w']+", text.lower())[0])


def test_ids_are_unique_over_all_files() -> None:
    ids = [row.prompt_id for row in starter_rows()] + [seed.id for seed in starter.seeds("train")]
    ids += [row.id for row in starter.demonstrations()] + [row.id for row in starter.refusals()]
    assert len(ids) == len(set(ids))


def test_every_jailbreak_belongs_to_a_held_out_request_and_each_has_one() -> None:
    heldout = {row.id: row for row in starter.harmful("heldout")}
    for row in starter.jailbreaks():
        assert row.behavior == heldout[row.seed].behavior and row.seed_text == heldout[row.seed].prompt
    assert {row.behavior for row in starter.jailbreaks()} == {row.behavior for row in heldout.values()}


def test_demonstrations_start_from_training_seeds_of_both_labels() -> None:
    train = {row.prompt for row in starter.harmful("train")}
    harmful = [row for row in starter.demonstrations() if row.label == "harmful"]
    benign = [row for row in starter.demonstrations() if row.label == "benign"]
    assert {row.seed_text for row in harmful} <= train and len(benign) >= 40
    assert all(row.prompt != row.seed_text for row in starter.demonstrations())


def test_every_harm_category_has_a_description() -> None:
    used = {row.category for row in [*starter.harmful("train"), *starter.harmful("heldout")]}
    assert used == set(starter.categories())


def test_right_answers_are_spread_over_the_places() -> None:
    places = [question.answer for question in starter.capability()]
    assert all(len(question.choices) == 4 == len(set(question.choices)) for question in starter.capability())
    assert all(0.15 < places.count(place) / len(places) < 0.35 for place in range(4))


def test_a_damaged_installation_is_one_line(tmp_path: Path) -> None:
    """A copy of the package with one starter file spoilt, read by a fresh process."""
    source = Path(starter.__file__).parent.parent
    code = f"""
import shutil, sys
shutil.copytree({str(source)!r}, {str(tmp_path / "sparring")!r}, ignore=shutil.ignore_patterns("__pycache__", "*.npz"))
sys.path.insert(0, {str(tmp_path)!r})
path = {str(tmp_path / "sparring/data/starter/jailbreaks.jsonl")!r}
lines = open(path).read().splitlines()
open(path, "w").write("\\n".join([lines[0], lines[1].replace('"seed": "h', '"seed": "t')]))
from sparring.data import starter
from sparring.errors import DataError
try:
    starter.jailbreaks()
except DataError as error:
    print(error)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert out.stdout.startswith("starter/jailbreaks.jsonl:2: seed 't") and out.stdout.count("\n") == 1
