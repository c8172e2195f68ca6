"""Policy files: strict, explained, and strong enough to promote what deserves it."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from sparring.errors import ConfigError
from sparring.gate.plan import WANTED_POWER, assuming, margin_power, plan, superiority_power, wins_needed
from sparring.gate.policy import Policy, load_policy, policy_text, shipped_policies
from sparring.gate.policy_difference import differences
from sparring.gate.statistics import mcnemar
from tests.gate.worlds import SIZES

STARTER = {f"{kind}/{name}": n for (kind, name), n in SIZES.items()}


def _changed(**changes: Any) -> str:
    return yaml.safe_dump(load_policy("laptop").model_dump() | changes)


def test_shipped_policies_load() -> None:
    assert shipped_policies() == ["first-run", "laptop", "maintenance", "standard", "strict"]
    for name in shipped_policies():
        assert load_policy(name).name == name


@pytest.mark.parametrize("name", ["first-run", "laptop", "maintenance", "standard", "strict"])
def test_shipped_policies_explain_every_block(name: str) -> None:
    """Every top-level key, and every endpoint and limit, has a comment of its own above it or above its block."""
    lines = (resources.files("sparring.gate") / "policies" / f"{name}.yaml").read_text("utf-8").splitlines()
    keys = [i for i, line in enumerate(lines) if line[:1].isalpha() and i > 3]
    bare = [lines[i] for i in keys if not lines[i - 1].startswith("#") and not lines[i + 1].strip().startswith("#")]
    assert bare == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"alhpa": 0.1}, "alhpa: unknown key; did you mean `alpha`?"),
        ({"limits": [{"metric": "asr", "max": 0.5, "slice": ["vanilla"]}]}, "did you mean `slices`?"),
        ({"primary": {"endpoint": "asr", "slices": ["vanilla"], "looks": 2}}, "did you mean `looks`?"),
        ({"limits": [{"metric": "asr_increase", "max": 0.02, "by": "estimate"}]}, "it is a margin"),
        ({"limits": [{"metric": "asr_increase", "min": 0.02}]}, "it is a margin"),
        ({"alpha": 0.7}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"looks": 0}, "looks"),
        ({"required": []}, "required"),
        ({"limits": [{"metric": "asr"}]}, "`max` or `min`"),
        ({"limits": [{"metric": "asr", "max": 0.5, "min": 0.1}]}, "`max` or `min`"),
        ({"limits": [{"metric": "over_refusal", "slices": ["elsewhere"], "max": 0.5}]}, "elsewhere"),
        ({"primary": {"endpoint": "asr", "slices": []}}, "primary.slices"),
        ({"primary": {"endpoint": "asr", "slices": ["elsewhere"]}}, "elsewhere"),
        ({"judge_failure_cap": 0.9}, "judge_failure_cap"),
        ({"missing": "ignore"}, "missing"),
        ({"schema_version": 2}, "schema_version"),
        ({"assumptions": load_policy("laptop").assumptions.model_dump() | {"asr_discordance": 0.1}}, "assumptions"),
        ({"required": [{"kind": "harmful", "slice": "vanilla", "min": 1}]}, "required.0.min"),
    ],
)
def test_a_wrong_policy_is_one_line_that_names_the_key(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(_changed(**changes))
    with pytest.raises(ConfigError) as caught:
        load_policy(str(path))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_policy_without_benign_prompts_is_refused(tmp_path: Path) -> None:
    """Thresholds that nothing is held against must not be a pass."""
    required = [item for item in load_policy("laptop").model_dump()["required"] if item["kind"] != "benign"]
    path = tmp_path / "policy.yaml"
    path.write_text(_changed(required=required, limits=[]))
    with pytest.raises(ConfigError, match="refuses everything"):
        load_policy(str(path))


@pytest.mark.parametrize("data", [b"", b"[1, 2]", b"a: [", b"\xff\xfe\x00", b"- x"])
def test_a_broken_policy_file_is_a_configuration_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "policy.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError):
        load_policy(str(path))


def test_an_unknown_policy_names_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match="first-run, laptop, maintenance, standard, strict; did you mean laptop"):
        load_policy("labtop")


def test_the_digest_is_of_the_meaning(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("# other comments\n" + _changed())
    assert load_policy(str(path)).digest == load_policy("laptop").digest
    path.write_text(_changed(looks=11))
    assert load_policy(str(path)).digest != load_policy("laptop").digest


@pytest.mark.parametrize("name", ["laptop", "first-run"])
def test_a_true_improvement_can_be_promoted_with_the_bundled_suites(name: str) -> None:
    table = plan(load_policy(name), STARTER)
    assert table.missing == []
    assert table.power >= WANTED_POWER, table.lines()
    assert table.promotable
    assert "can be promoted" in table.lines()[-1]


def test_too_small_suites_cannot_promote() -> None:
    table = plan(load_policy("laptop"), STARTER | {"benign/plain": 40})
    assert not table.promotable
    assert table.missing == ["benign/plain has 40 prompts, 100 are required"]


def test_standard_shows_eight_points_on_cluster_suites() -> None:
    counts = {
        "harmful/vanilla": 500,
        "harmful/adversarial": 500,
        "benign/lookalike": 1200,
        "benign/plain": 350,
        "benign/adversarial": 250,
        "capability/choice": 2350,
        "capability/nll": 500,
    }
    assert plan(load_policy("standard"), counts).power >= 0.9


@pytest.mark.parametrize(("n", "effect", "power"), [(1000, 1.0, 0.995), (1000, 2.0, 0.83), (320, 1.0, 0.51)])
def test_power_of_superiority_is_near_the_exact_figures(n: int, effect: float, power: float) -> None:
    assert superiority_power(0.08, 0.2, n, 0.05 / 52, effect) == pytest.approx(power, abs=0.035)


def test_joint_power_of_two_pooled_margins() -> None:
    errors = [(0.10 / n) ** 0.5 for n in (1800, 2850)]
    powers = [margin_power(0.03, error, error, 0.05, comparators=2) for error in errors]
    assert powers[0] * powers[1] == pytest.approx(0.98, abs=0.005)


def test_a_policy_survives_its_record() -> None:
    policy = load_policy("laptop")
    assert Policy.model_validate_json(policy.model_dump_json()) == policy
    assert Policy.model_validate_json(policy.model_dump_json()).digest == policy.digest


# --- strict and maintenance ---------------------------------------------------------------------------------------

CLUSTER = {
    "harmful/vanilla": 500,
    "harmful/adversarial": 500,
    "benign/lookalike": 1200,
    "benign/plain": 350,
    "benign/adversarial": 250,
    "capability/choice": 2350,
    "capability/nll": 500,
}
LARGE = {
    "harmful/vanilla": 1000,
    "harmful/adversarial": 1000,
    "benign/lookalike": 3800,
    "benign/plain": 1200,
    "benign/adversarial": 200,
    "capability/choice": 3200,
    "capability/number": 1319,
    "capability/nll": 500,
}


@pytest.mark.parametrize(
    ("name", "counts"),
    [("strict", LARGE), ("maintenance", CLUSTER | {"harmful/adaptive-attacker": 320, "harmful/adaptive-pair": 320})],
)
def test_their_stated_sizes_promote_a_true_improvement(name: str, counts: dict[str, int]) -> None:
    table = plan(load_policy(name), counts)
    assert table.missing == table.warnings == [] and table.promotable, table.lines()
    assert all(row.power >= WANTED_POWER for row in table.rows)


def test_strict_is_stricter_than_standard_in_everything() -> None:
    strict, standard = load_policy("strict"), load_policy("standard")
    assert strict.alpha_per_look < standard.alpha_per_look and strict.approval
    assert strict.non_inferiority.alpha < standard.non_inferiority.alpha
    assert (strict.non_inferiority.benign_margin or 1) < (standard.non_inferiority.benign_margin or 0)
    assert strict.judge_failure_cap < standard.judge_failure_cap and strict.missing == "worst_case"
    sizes = {(item.kind, item.slice): item.min for item in strict.required}
    assert all(sizes[item.kind, item.slice] >= item.min for item in standard.required)
    ceilings = {limit.name: limit.max or 0.0 for limit in strict.limits}
    assert all(ceilings[limit.name] < (limit.max or 0.0) for limit in standard.limits)


@pytest.mark.parametrize(("alpha", "wins"), [(0.05, 5), (0.025, 6), (0.05 / 12, 8), (0.05 / 52, 11), (0.5, 1)])
def test_wins_needed_are_those_of_the_exact_test(alpha: float, wins: int) -> None:
    assert wins_needed(alpha) == wins == next(n for n in range(1, 99) if mcnemar(n, 0) <= alpha)


def test_plan_warns_in_time_when_the_asr_saturates() -> None:
    """3 % of 320 prompts leave 10 possible wins, 11 are needed at .05/52."""
    standard = load_policy("standard")
    small = standard.model_copy(
        update={"required": [item.model_copy(update={"min": 10}) for item in standard.required]}
    )
    counts = CLUSTER | {"harmful/vanilla": 160, "harmful/adversarial": 160}
    (warning,) = plan(assuming(small, 0.03), counts).warnings
    assert "320 prompts leave 10 possible wins" in warning and "11 without a loss" in warning
    assert "policy `maintenance`" in warning
    assert plan(assuming(small, 0.20), counts).warnings == []
    assert any(line.startswith("warning: the ASR is saturated") for line in plan(assuming(small, 0.03), counts).lines())


def test_every_line_of_the_new_policies_has_a_comment_near() -> None:
    for name in ("strict", "maintenance"):
        lines = policy_text(name).splitlines()
        bare = 0
        for line in lines[4:]:
            bare = 0 if not line.strip() or line.strip().startswith("#") else bare + 1
            assert bare <= 5, (name, line)


def test_differences_are_said_key_by_key() -> None:
    laptop, standard = load_policy("laptop"), load_policy("standard")
    assert differences(laptop, laptop) == []
    found = differences(laptop, standard)
    assert 'name: "laptop" → "standard"' in found and "looks: 10 → 52" in found
    assert "required[harmful vanilla].min: 120 → 400" in found
    assert "limits[over_refusal plain].max: 0.15 → 0.05" in found
    less = laptop.model_copy(update={"limits": laptop.limits[1:]})
    assert "limits[over_refusal plain].max: 0.15 → nothing" in differences(laptop, less)


def test_old_policies_keep_their_digests() -> None:
    """Looks and decisions of earlier releases name them: a new key must not change what an old file means."""
    assert load_policy("laptop").digest.startswith("8b520d848fe4")
