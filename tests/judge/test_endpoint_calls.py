"""Judges behind endpoints, against a real server that fails in every way: void each time, and bounded."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest

from sparring.config.judges import EndpointConfig
from sparring.errors import ConfigError
from sparring.judge import endpoint as endpoint_module
from sparring.judge.cache import FOLDER
from sparring.judge.endpoint import EndpointJudge
from sparring.judge.protocol import JudgeCase
from sparring.store import open_store
from tests.faults.openai_server import Answer, Foreign, Response, said, serving

SAFE = "Safety: Safe\nCategories: None\nRefusal: Yes"
UNSAFE = "Safety: Unsafe\nCategories: Violent\nRefusal: No"
CASES = [JudgeCase(f"prompt {i}", f"I cannot help with number {i}, sorry.", "harmful") for i in range(40)]


def config(url: str, **changes: Any) -> EndpointConfig:
    given = {"format": "qwen3guard", "base_url": url, "model": "guard", "retries": 0, "timeout_s": 5.0}
    return EndpointConfig.model_validate({**given, **changes})


def judged(answer: Answer, cases: list[JudgeCase], **changes: Any) -> tuple[EndpointJudge, list[Any], Foreign]:
    with serving(answer) as foreign:
        judge = EndpointJudge("guard", config(foreign.url, **changes))
        return judge, judge.judge(cases), foreign


def test_verdicts_come_in_order_and_are_counted() -> None:
    def answer(body: dict[str, Any], _: int) -> Response:
        return said(UNSAFE if int(body["messages"][0]["content"].split()[1]) % 3 == 0 else SAFE)

    judge, verdicts, foreign = judged(answer, CASES, concurrency=8, price_in=2.0, price_out=4.0)
    assert [v.harmful for v in verdicts] == [i % 3 == 0 for i in range(40)]
    assert [v.refused for v in verdicts] == [i % 3 != 0 for i in range(40)]
    assert all(v.ok and v.degenerate is False and v.prompt_harmful for v in verdicts)
    assert 1 < foreign.most_at_once <= 8
    metrics = judge.usage.metrics()
    assert metrics["requests"] == metrics["cases"] == 40 and metrics["failed"] == metrics["cached"] == 0
    assert metrics["cost"] == pytest.approx(40 * (100 * 2.0 + 5 * 4.0) / 1e6)
    assert 0 < metrics["p50_s"] <= metrics["p95_s"]
    assert foreign.requests[0]["temperature"] == 0 and foreign.requests[0]["path"] == "/v1/chat/completions"


BROKEN = {
    "500": Response(status=500),
    "404": Response(status=404),
    "429": Response(status=429, headers={"Retry-After": "100"}),
    "not JSON": Response(body=b"<html>busy</html>", kind="text/html"),
    "JSON by name only": Response(body=b"<html>busy</html>"),
    "truncated": Response(body=said(SAFE).body, cut=30),
    "truncated JSON": Response(body=said(SAFE).body[:30]),
    "no choices": Response(body=b'{"choices": []}'),
    "null": Response(body=b"null"),
    "two choices": Response(body=json.dumps({"choices": json.loads(said(SAFE).body)["choices"] * 2}).encode()),
    "no text": said(None),  # type: ignore[arg-type]
    "deep": Response(body=b"[" * 200_000),
    "huge": Response(body=said(SAFE + " " * (3 << 20)).body),
    "unpacks hugely": Response(body=gzip.compress(said(SAFE).body), headers={"Content-Encoding": "gzip"}),
    "filtered": said(SAFE, finish_reason="content_filter"),
    "wordy": said("I think that it is safe. " + SAFE),
    "nonsense": said("\ufffd\u0000 yes no yes"),
    "empty": said(""),
    "redirect": Response(status=307, headers={"Location": "http://127.0.0.1:9/v1/chat/completions"}),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_whatever_an_endpoint_sends_is_a_void_with_a_reason(fault: str) -> None:
    judge, verdicts, _ = judged(lambda *_: BROKEN[fault], CASES[:3])
    assert [v.status for v in verdicts] == ["void"] * 3
    assert all(v.reason and len(v.reason) < 160 and v.harmful is None and v.refused is None for v in verdicts)
    assert judge.usage.metrics()["failed"] == 3


def test_a_dead_endpoint_is_given_up_and_the_rest_is_void_at_once() -> None:
    with serving(lambda *_: said(SAFE)) as foreign:
        url = foreign.url
    judge = EndpointJudge("guard", config(url, give_up_after=5, concurrency=2))
    start = time.monotonic()
    verdicts = judge.judge([JudgeCase(f"p{i}", "a", None) for i in range(5000)])
    assert time.monotonic() - start < 10
    assert all(not v.ok for v in verdicts)
    assert judge.usage.requests <= 8
    assert "given up after 5 failures" in verdicts[-1].reason
    assert not any(v.ok for v in judge.judge(CASES)) and judge.usage.requests <= 8  # also in the next batch


def test_a_given_up_endpoint_is_tried_again_after_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "REST", 0.0)
    with serving(lambda _, number: Response(status=503) if number < 3 else said(SAFE)) as foreign:
        judge = EndpointJudge("guard", config(foreign.url, give_up_after=3, concurrency=1))
        assert [v.ok for v in judge.judge(CASES[:3])] == [False] * 3
        assert all(v.ok for v in judge.judge(CASES[3:8]))


def test_one_too_long_case_does_not_condemn_the_endpoint() -> None:
    def answer(_: dict[str, Any], number: int) -> Response:
        return said(SAFE) if number == 20 else Response(status=400)

    judge, verdicts, foreign = judged(answer, CASES[:21], give_up_after=3, concurrency=1)
    assert len(foreign.requests) == 21 and [v.ok for v in verdicts] == [False] * 20 + [True]
    assert judge.usage.failures == {"HTTP 400": 20}


def test_what_fails_for_a_moment_is_asked_again() -> None:
    seen: set[str] = set()

    def answer(body: dict[str, Any], _: int) -> Response:
        prompt = body["messages"][0]["content"]
        first = prompt not in seen
        seen.add(prompt)
        fault = int(prompt.split()[1]) % 3
        return (
            [Response(status=503), Response(status=429), Response(body=said(SAFE).body, cut=20)][fault]
            if first
            else said(SAFE)
        )

    judge, verdicts, _ = judged(answer, CASES[:6], retries=2)
    assert all(v.ok for v in verdicts)
    assert judge.usage.requests == 12


def test_a_stalling_endpoint_costs_a_bounded_time() -> None:
    start = time.monotonic()
    _, verdicts, _ = judged(lambda *_: Response(delay=3.0), CASES[:8], timeout_s=0.3, concurrency=8)
    assert time.monotonic() - start < 3.0 + 1.5  # the server itself still sleeps
    assert {v.reason for v in verdicts} == {"guard: time-out"}


def test_a_server_that_asks_to_wait_cannot_hold_a_call_up() -> None:
    with serving(lambda *_: Response(status=429, headers={"Retry-After": "60"})) as foreign:
        judge = EndpointJudge("guard", config(foreign.url, retries=3, max_minutes=0.02))
        start = time.monotonic()
        assert {v.reason for v in judge.judge(CASES[:4])} == {"guard: time limit"}
        assert time.monotonic() - start < 4
        assert "minutes of judging are over" in judge.judge(CASES[4:5])[0].reason


def test_attempts_leave_at_the_rate_that_is_allowed() -> None:
    judge, verdicts, foreign = judged(lambda *_: said(SAFE), CASES[:10], requests_per_minute=600, concurrency=10)
    gaps = [later - earlier for earlier, later in zip(foreign.times, foreign.times[1:], strict=False)]
    assert all(v.ok for v in verdicts) and judge.usage.requests == 10
    assert foreign.times[-1] - foreign.times[0] > 0.8 and min(gaps) > 0.0


# --- cache --------------------------------------------------------------------------------------------------------


def test_a_verdict_is_paid_for_once_and_a_void_never_kept(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    with serving(lambda _, number: said(SAFE) if number != 3 else said("hm")) as foreign:
        first = EndpointJudge("guard", config(foreign.url, concurrency=1), store)
        verdicts = first.judge(CASES[:6])
        assert [v.ok for v in verdicts] == [True, True, True, False, True, True]
        again = EndpointJudge("guard", config(foreign.url, concurrency=1), store)
        verdicts = again.judge([*CASES[:6], CASES[0]])
        assert all(v.ok for v in verdicts)
        assert (again.usage.requests, again.usage.cached) == (1, 6)
        other = EndpointJudge("guard", config(foreign.url, model="other"), store)
        other.judge(CASES[:6])
        assert other.usage.requests == 6 and other.id != first.id


def test_a_cached_verdict_takes_the_label_of_the_case_at_hand(tmp_path: Path) -> None:
    with serving(lambda *_: said("5")) as foreign:
        judge = EndpointJudge("graded", config(foreign.url, format="graded"), open_store(str(tmp_path)))
        harmful, benign, unknown = judge.judge(
            [JudgeCase("p", "an answer", label) for label in ("harmful", "benign", None)]
        )
    assert judge.usage.requests == 1
    assert (harmful.harmful, harmful.score, harmful.prompt_harmful) == (True, 5, True)
    assert (benign.harmful, benign.score, benign.prompt_harmful) == (False, 1, False)
    assert (unknown.harmful, unknown.score, unknown.prompt_harmful) == (True, 5, None)


def test_an_object_of_the_cache_that_was_damaged_is_passed_over(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    with serving(lambda *_: said(SAFE)) as foreign:
        EndpointJudge("guard", config(foreign.url), store).judge(CASES[:4])
        (key,) = store.list(FOLDER)
        store.put(key, store.get(key).replace(b'"harmful":false', b'"harmful":true '))
        judge = EndpointJudge("guard", config(foreign.url), store)
        assert not any(v.harmful for v in judge.judge(CASES[:4]))
        assert judge.usage.requests == 4


def test_what_was_judged_before_a_kill_is_kept(tmp_path: Path) -> None:
    """The process ends while the server stalls: what had come back lies in the store."""

    class Killed(BaseException):
        pass

    store = open_store(str(tmp_path))
    with serving(lambda *_: said(SAFE)) as foreign:
        judge = EndpointJudge("guard", config(foreign.url, concurrency=1), store)
        parse, left = judge._format.parse, [3]

        def dying(text: str) -> Any:
            if not left[0]:
                raise Killed
            left[0] -= 1
            return parse(text)

        object.__setattr__(judge._format, "parse", dying)
        try:
            with pytest.raises(Killed):
                judge.judge(CASES[:10])
        finally:
            object.__setattr__(judge._format, "parse", parse)
        again = EndpointJudge("guard", config(foreign.url), store)
        assert all(v.ok for v in again.judge(CASES[:10]))
        assert again.usage.requests == 7


# --- secrets ------------------------------------------------------------------------------------------------------


def test_secrets_come_from_the_environment_and_go_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARD_KEY", "s3cret")
    monkeypatch.setenv("GUARD_TEAM", "blue")
    monkeypatch.setenv("OPENAI_API_KEY", "not-yours")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-not-yours")
    judge, _, foreign = judged(
        lambda *_: said(SAFE), CASES[:1], api_key_env="GUARD_KEY", headers_env={"X-Team": "GUARD_TEAM"}
    )
    assert foreign.headers[0]["authorization"] == "Bearer s3cret" and foreign.headers[0]["x-team"] == "blue"
    assert "openai-organization" not in foreign.headers[0]
    assert "s3cret" not in repr(judge._secrets) + repr(judge._config) + judge.id
    _, _, foreign = judged(lambda *_: said(SAFE), CASES[:1])
    assert "not-yours" not in json.dumps(foreign.headers)


def test_a_secret_that_is_not_set_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GUARD_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"judge\.endpoints\.guard\.api_key_env: .* GUARD_KEY is not set"):
        EndpointJudge("guard", config("http://127.0.0.1:9/v1", api_key_env="GUARD_KEY"))


def test_the_id_names_what_decides_and_not_where_it_is_served() -> None:
    base = config("http://127.0.0.1:9/v1", format="graded")
    ids = {
        EndpointJudge("g", base.model_copy(update=change)).id
        for change in ({}, {"base_url": "http://h/v1"}, {"retries": 3})
    }
    assert len(ids) == 1
    changes: list[dict[str, Any]] = [{"threshold": 4.0}, {"model": "b"}, {"max_tokens": 9}, {"format": "strongreject"}]
    ids |= {EndpointJudge("g", base.model_copy(update=change)).id for change in changes}
    assert len(ids) == 5
