"""The run file: what it accepts, and one clear line for every mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from sparring.config.checks import cross_check
from sparring.config.load import json_schema, load_run
from sparring.config.recipes import RECIPES
from sparring.config.render import render
from sparring.config.run import DataConfig, GameConfig, ReportConfig, RunConfig, SelfplayConfig, SuiteSource
from sparring.errors import ConfigError


def _file(folder: Path, content: str | bytes) -> Path:
    path = folder / "run.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _sections() -> list[tuple[str, type[BaseModel]]]:
    found: list[tuple[str, Any]] = [(name, field.annotation) for name, field in RunConfig.model_fields.items()]
    return [(name, model) for name, model in found if _is_model(model)]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    return [annotation] if _is_model(annotation) else [m for part in get_args(annotation) for m in _models_in(part)]


def _all_models(model: type[BaseModel]) -> set[type[BaseModel]]:
    """A section and all below it, also those in lists and under names of the user's own."""
    below = [m for field in model.model_fields.values() for m in _models_in(field.annotation)]
    return {model, *(deeper for m in below for deeper in _all_models(m))}


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def test_nothing_set_is_the_default_recipe(tmp_path: Path) -> None:
    assert load_run(None) == RunConfig() == load_run(_file(tmp_path, "recipe: default\n"))


def test_importing_it_brings_neither_torch_nor_kfp() -> None:
    code = "import sys, sparring.config.load, sparring.config.render; print({'torch', 'kfp'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_a_sound_configuration(tmp_path: Path, name: str) -> None:
    config = load_run(_file(tmp_path, f"recipe: {name}\n"))
    for section, values in RECIPES[name].items():
        assert getattr(config, section).model_dump().items() >= dict(values).items()


def test_the_file_wins_over_its_recipe_and_an_override_over_the_file(tmp_path: Path) -> None:
    path = _file(tmp_path, "recipe: selfredteam-8b\nselfplay:\n  steps: 7\n")
    assert load_run(path).selfplay.steps == 7
    assert load_run(path).selfplay.games == RECIPES["selfredteam-8b"]["selfplay"]["games"]
    assert load_run(path, ["selfplay.steps=9", "recipe=default"]).selfplay == SelfplayConfig(steps=9)


def test_an_empty_section_and_a_plain_exponent_are_understood(tmp_path: Path) -> None:
    config = load_run(_file(tmp_path, "\ufeffreport:\nselfplay: {learning_rate: 2e-5, kl: 1}\n"))
    assert (config.report, config.selfplay.learning_rate, config.selfplay.kl) == (ReportConfig(), 2e-5, 1.0)


def test_paths_are_relative_to_the_file_and_in_overrides_to_the_folder(tmp_path: Path, monkeypatch: Any) -> None:
    text = """
store: store
data:
  harmful: [starter, bad.csv, /else/bad.csv, 's3://bucket/bad.csv']
  suites: [{name: a, path: sub/a.csv, kind: harmful}]
gate: {policy: mine.yaml, first_run: first-run}
model: {source: org/model}
"""
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    path = _file(tmp_path, text)
    config = load_run(path, ["candidate=new"])
    assert config.store == str(tmp_path / "store")
    assert config.data.harmful == ["starter", str(tmp_path / "bad.csv"), "/else/bad.csv", "s3://bucket/bad.csv"]
    assert config.data.suites[0].path == str(tmp_path / "sub/a.csv")
    assert (config.gate.policy, config.gate.first_run) == (str(tmp_path / "mine.yaml"), "first-run")
    assert config.candidate == str(other / "new")
    assert config.model.source == "org/model"
    (tmp_path / "org/model").mkdir(parents=True)
    assert load_run(path).model.source == str(tmp_path / "org/model")


BAD_FILES: list[tuple[str | bytes, list[str]]] = [
    ("", ["run.yaml: empty"]),
    ("# only a comment\n", ["run.yaml: empty"]),
    (b"\x00\x01\x02", ["binary"]),
    (b"\x89PNG\r\n\x1a\n\x00", ["binary"]),
    ("line: gr\xfc\xdf\n".encode("latin-1"), ["run.yaml:1", "UTF-8"]),
    ("recipe: full\n".encode("utf-16"), ["binary"]),
    ("#" * (1 << 21), ["larger than 1 MiB"]),
    ("- 1\n- 2\n", ["`key: value`"]),
    ("word", ["`key: value`"]),
    ("selfplay:\n  steps: [1\n", ["run.yaml:", "not valid YAML"]),
    ("selfplay:\n\tsteps: 1\n", ["run.yaml:2", "not valid YAML"]),
    ("a: &x 1\nb: *x\n", ["run.yaml:2", "aliases"]),
    ("a: !!python/object/apply:os.system [true]\n", ["run.yaml:1", "not valid YAML"]),
    ("line: a\n---\nline: b\n", ["run.yaml:2", "not valid YAML"]),
    ("line: 2020-13-45\n", ["quotes"]),
    ('line: "a\x07"\n', ["character 9"]),
    ("[" * 100_000, ["run.yaml:1", "nested more than 32 deep"]),
    ("{a: " * 20_000, ["run.yaml:1", "nested more than 32 deep"]),
    ("1: 2\n", ["run.yaml:1", "plain word"]),
    ("? [a]\n: 1\n", ["run.yaml:1", "plain word"]),
    ("selfplay:\n  steps: 1\n  steps: 2\n", ["run.yaml:3", "`steps`", "twice", "line 2"]),
    ("recipe: full\nselfplay: {}\nrecipe: default\n", ["run.yaml:3", "`recipe`", "twice", "line 1"]),
    ("selfplay:\n  stpes: 3\n", ["run.yaml:2", "`selfplay.stpes`", "did you mean `steps`?"]),
    ("store: ~nobody-of-that-name/x\n", ["run.yaml:1", "store", "~nobody-of-that-name", "no such user"]),
    ('store: ""\n', ["run.yaml:1", "store", "a folder or an address"]),
    ("hooks: [{kind: slakc, name: a}]\n", ["run.yaml:1", "slakc", "hooks: Who is told of a decision"]),
    ("seflplay: {}\n", ["run.yaml:1", "`seflplay`", "did you mean `selfplay`?"]),
    ("steps: 3\n", ["`warm_start.steps` or `selfplay.steps`"]),
    ("zzzz: 3\n", ["known here: schema_version, recipe"]),
    ("data:\n  suites:\n  - nmae: a\n", ["run.yaml:3", "`data.suites.0.nmae`", "did you mean `name`?"]),
    ("recipe: fulll\n", ["run.yaml:1", 'recipe = "fulll"', "'default', 'full' or 'selfredteam-8b'"]),
    ("schema_version: 2\n", ["schema_version = 2", "should be 1"]),
    (
        "selfplay:\n  steps: -1\n",
        ["run.yaml:2", "selfplay.steps = -1", "greater than or equal to 0", "Optimizer steps"],
    ),
    ("selfplay:\n  steps: yes\n", ["run.yaml:2", "selfplay.steps = true", "integer"]),
    ("selfplay:\n  steps: '3'\n", ['selfplay.steps = "3"', "integer"]),
    ("selfplay:\n  kl: .nan\n", ["selfplay.kl = NaN", "finite"]),
    ("selfplay: 5\n", ["selfplay = 5"]),
    ("data: {harmful: a.csv}\n", ['data.harmful = "', "should be a list"]),
    ("data: {harmful: []}\n", ["data.harmful = []", "at least 1"]),
    ("line: A\n", ['line = "A"', "match pattern"]),
    ("data:\n  suites:\n  - {name: a, path: b}\n", ["run.yaml:3", "`data.suites.0.kind` is missing"]),
    ("selfplay:\n  games: 31\n", ["run.yaml:2", "selfplay.games = 31", "multiple of selfplay.group = 2"]),
    ("selfplay:\n  micro_batch: 7\n", ["run.yaml:2", "selfplay.micro_batch = 7", "selfplay.group = 2"]),
    ("game:\n  attack_tokens: 200\n", ["game.max_prompt_tokens = 160", "game.attack_tokens = 200"]),
    ("data:\n  starter_suites: false\n", ["run.yaml:2", "a benign and a harmful suite"]),
    ("data: {benign: [a.csv, a.csv]}\n", ["data.benign", "twice"]),
    ("data: {suites: [{name: starter-x, path: a, kind: benign}]}\n", ["starter-x", "starter set"]),
    (
        "data:\n  suites:\n  - {name: a, path: b, kind: benign}\n  - {name: a, path: c, kind: benign}\n",
        ["run.yaml:4", "twice"],
    ),
]


@pytest.mark.parametrize(("content", "parts"), BAD_FILES, ids=[str(i) for i in range(len(BAD_FILES))])
def test_a_bad_file_is_one_line_that_says_where_and_what(
    tmp_path: Path, content: str | bytes, parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_run(_file(tmp_path, content))
    line = str(caught.value)
    assert "\n" not in line and len(line) < 1000
    for part in ["run.yaml", *parts]:
        assert part in line
    assert caught.value.exit_code == 2


def test_a_file_that_is_not_there_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        load_run(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("selfplay.steps", "must be section.key=value"),
        ("=3", "must be section.key=value"),
        ("selfplay..steps=3", "must be section.key=value"),
        ("selfplay.stpes=3", "did you mean `steps`?"),
        ("selfplay.steps=-3", "selfplay.steps = -3: should be greater than or equal to 0"),
        ("selfplay.steps=[", "not valid YAML"),
        ("selfplay=3", "selfplay = 3"),
        ("selfplay.steps.x=3", "selfplay.steps"),
        ("selfplay.games=31", "must be a multiple"),
    ],
)
def test_a_bad_override_is_named_and_quoted(tmp_path: Path, override: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_run(_file(tmp_path, "selfplay:\n  steps: 4\n"), [override])
    assert str(caught.value).startswith(f"override {override!r}: ")
    assert part in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("section", [name for name, _ in _sections()])
def test_a_misspelt_key_is_answered_with_the_right_one(tmp_path: Path, section: str) -> None:
    for key in dict(_sections())[section].model_fields:
        typo = key + "x"
        with pytest.raises(ConfigError, match=rf"run\.yaml:2: unknown key `{section}\.{typo}`.*`{key}`"):
            load_run(_file(tmp_path, f"{section}:\n  {typo}: 1\n"))


def test_a_hook_has_the_keys_of_its_kind_and_no_others(tmp_path: Path) -> None:
    chat = "hooks:\n- {name: chat, kind: slack, url: {env: CHAT}}\n"
    serve = chat + "- {name: serve, kind: kserve, namespace: models, service: champion%s}\n"
    _, hook = load_run(_file(tmp_path, serve % "")).hooks
    assert hook.kind == "kserve" and hook.namespace == "models"
    with pytest.raises(ConfigError, match=r"run\.yaml:3: unknown key `hooks\.1\.ready`.*ready_s"):
        load_run(_file(tmp_path, serve % ", ready: 1"))
    with pytest.raises(ConfigError, match=r"run\.yaml:2: unknown key `hooks\.0\.smoke`"):
        load_run(_file(tmp_path, "hooks:\n- {name: chat, kind: slack, url: {env: CHAT}, smoke: []}\n"))


def test_every_key_is_documented_in_the_model_the_rendering_and_the_schema() -> None:
    text, schema = " ".join(render(RunConfig()).replace("# ", " ").split()), json_schema()
    models = _all_models(RunConfig)
    assert {"SuiteSource", "SlackConfig", "EndpointConfig", "LoraConfig"} <= {model.__name__ for model in models}
    for model in models:
        name = model.__name__
        described = schema["properties"] if model is RunConfig else schema["$defs"][name]["properties"]
        for key, field in model.model_fields.items():
            if key == "kind" and not field.description:
                continue  # a hook's: the headings name it
            assert f"{key}:" in text
            if _models_in(field.annotation) and not field.description:
                continue
            assert field.description and described[key]["description"] == field.description, (name, key)
            assert " ".join(field.description.split()) in text, (name, key)
        assert (schema if model is RunConfig else schema["$defs"][name])["additionalProperties"] is False


NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True).filter(lambda name: not name.startswith("starter"))
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)
PATHS = WORDS.map(lambda word: "/" + word.lstrip("/"))
SOURCES = st.lists(st.just("starter") | PATHS, min_size=1, max_size=3, unique=True)


@st.composite
def _configs(draw: st.DrawFn) -> RunConfig:
    suites = draw(
        st.lists(
            st.builds(
                SuiteSource,
                name=NAMES,
                path=PATHS,
                kind=st.sampled_from(["harmful", "benign"]),
                slice=WORDS,
                column=st.none() | WORDS,
                limit=st.none() | st.integers(1, 10**6),
            ),
            max_size=3,
            unique_by=lambda suite: suite.name,
        )
    )
    share, group = st.floats(0, 1), draw(st.integers(2, 8))
    return RunConfig(
        recipe=draw(st.sampled_from(["default", "full"])),
        line=draw(NAMES),
        seed=draw(st.integers(0, 2**40)),
        store=draw(PATHS),
        candidate=draw(st.none() | PATHS),
        data=DataConfig(harmful=draw(SOURCES), benign=draw(SOURCES), suites=suites, near_duplicate=draw(share)),
        game=GameConfig(temperature=draw(st.floats(1e-300, 2)), generated_share=draw(share)),
        selfplay=SelfplayConfig(
            group=group,
            games=group * draw(st.integers(2, 9)),
            micro_batch=group * draw(st.integers(1, 9)),
            learning_rate=draw(st.floats(0, 1e300)),
            train_attacker=draw(st.booleans()),
        ),
    )


@settings(max_examples=60, deadline=None)
@given(config=_configs())
def test_what_is_rendered_is_read_back_to_the_same(tmp_path_factory: pytest.TempPathFactory, config: RunConfig) -> None:
    if cross_check(config) is None:
        assert load_run(_file(tmp_path_factory.mktemp("c"), render(config))) == config


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")))
def test_no_file_ends_in_anything_but_a_configuration_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    try:
        load_run(_file(tmp_path_factory.mktemp("c"), content))
    except ConfigError as error:
        assert "\n" not in str(error)
