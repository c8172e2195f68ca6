"""The KServe hook against a real Kubernetes: its own kind, a status that a small controller sets, a real predictor."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sparring.config.hooks import KServeConfig
from sparring.integrations.deliveries import Delivery, Line, deliver
from sparring.registry import champion, serving
from sparring.store.local import LocalStore
from tests.e2e.conftest import Kubectl
from tests.e2e.install import custom_kinds
from tests.integrations.conftest import FIRST, SECOND, promote
from tests.integrations.receiver import Receiver, receiver

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

BEGUN = "s3://models/before"
COMPLETION = json.dumps({"choices": [{"message": {"content": "Red, green and blue."}}]}).encode()
EMPTY = json.dumps({"choices": [{"message": {"content": " .. "}}]}).encode()


@pytest.fixture(scope="module", autouse=True)
def _kinds(kubectl: Kubectl) -> Iterator[None]:
    with custom_kinds(kubectl):
        yield


@pytest.fixture
def service(kubectl: Kubectl, namespace: str) -> Iterator[str]:
    """An InferenceService that serves something else."""
    made = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "champion", "namespace": namespace},
        "spec": {"predictor": {"model": {"modelFormat": {"name": "huggingface"}, "storageUri": BEGUN}}},
    }
    kubectl("apply", "--server-side", "--validate=strict", "-f", "-", text=json.dumps(made))
    yield "champion"
    kubectl("-n", namespace, "delete", "inferenceservice", "champion")


@pytest.fixture
def predictor() -> Iterator[Receiver]:
    with receiver() as found:
        found.plan = lambda seen, count: (200, COMPLETION)
        yield found


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(LocalStore(tmp_path / "store").scope("lines/default"), "default")


@contextlib.contextmanager
def controller(kubectl: Kubectl, namespace: str, bad: str = "") -> Iterator[None]:
    """Sets the status as KServe does: of the generation it saw, Ready unless the uri ends with `bad`."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.3):
            found = json.loads(kubectl("-n", namespace, "get", "inferenceservice", "champion", "-o", "json"))
            uri = found["spec"]["predictor"]["model"]["storageUri"]
            ready = not bad or not uri.endswith(bad)
            condition = {"type": "Ready", "status": str(ready), "reason": "" if ready else "ModelLoadFailed"}
            status = {"observedGeneration": found["metadata"]["generation"], "conditions": [condition]}
            patch = json.dumps({"status": status})
            kubectl(
                "-n", namespace, "patch", "inferenceservice", "champion", "--subresource=status", "--type=merge",
                "-p", patch,
            )  # fmt: skip

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def hook(namespace: str, predictor: Receiver, **other: object) -> list[KServeConfig]:
    settings = {"name": "serve", "kind": "kserve", "namespace": namespace, "service": "champion", "ready_s": 60}
    return [KServeConfig.model_validate({**settings, "smoke_url": predictor.url, "attempts": 1, **other})]


def uri(kubectl: Kubectl, namespace: str) -> str:
    return kubectl(
        "-n", namespace, "get", "inferenceservice", "champion", "-o", "jsonpath={.spec.predictor.model.storageUri}"
    )


def told(done: list[Delivery]) -> list[tuple[int, str, str]]:
    return [(d.record, d.state, d.attempts[-1].detail if d.attempts else "") for d in done]


def test_a_promotion_is_served_and_a_rollback_too(
    kubectl: Kubectl, namespace: str, service: str, predictor: Receiver, line: Line
) -> None:
    promote(line, 1)
    with controller(kubectl, namespace):
        assert told(deliver(line, hook(namespace, predictor))) == [(1, "delivered", f"serves {FIRST[:12]}")]
        assert uri(kubectl, namespace) == f"{line.store.url}/checkpoints/{FIRST}"
        promote(line, 2, SECOND)
        champion.rollback(line.store, to=None, actor="eve", reason="it swears")
        assert told(deliver(line, hook(namespace, predictor)))[-1] == (3, "delivered", f"serves {FIRST[:12]}")
    assert uri(kubectl, namespace) == f"{line.store.url}/checkpoints/{FIRST}"
    last = serving.latest(line.store, f"{namespace}.champion")
    assert last is not None
    assert (last.state, last.digest, last.record) == ("serving", FIRST, 3)
    assert predictor.seen[0].path == "/chat/completions"
    assert predictor.seen[0].json()["messages"] == [{"role": "user", "content": "Name three colours."}]


@pytest.mark.parametrize(
    ("plan", "reason", "then"),
    [
        ((200, EMPTY), "the answer has no words", "given_up"),
        ((200, b"<html>"), "no chat completion", "failing"),
        ((500, b""), "answered 500", "failing"),
    ],
)
def test_a_model_that_fails_its_smoke_prompts_is_turned_back_and_stays_champion(
    plan: tuple[int, bytes], reason: str, then: str, kubectl: Kubectl, namespace: str, service: str,
    predictor: Receiver, line: Line,
) -> None:  # fmt: skip
    predictor.plan = lambda seen, count: plan
    promote(line, 1)
    with controller(kubectl, namespace):
        ((record, state, detail),) = told(deliver(line, hook(namespace, predictor)))
    assert (record, state) == (1, then)
    assert reason in detail
    assert uri(kubectl, namespace) == BEGUN
    assert champion.read_log(line.store).champion == FIRST
    last = serving.latest(line.store, f"{namespace}.champion")
    assert last is not None
    assert (last.state, last.digest, last.uri) == ("reverted", None, BEGUN)


def test_a_model_that_never_loads_is_turned_back(
    kubectl: Kubectl, namespace: str, service: str, predictor: Receiver, line: Line
) -> None:
    promote(line, 1)
    with controller(kubectl, namespace, bad=FIRST):
        ((_, state, detail),) = told(deliver(line, hook(namespace, predictor, ready_s=3)))
    assert state == "failing"
    assert "not Ready within 3 s: Ready ModelLoadFailed" in detail
    assert uri(kubectl, namespace) == BEGUN
    assert not predictor.seen


@pytest.mark.parametrize("good", [True, False], ids=["good", "bad"])
def test_killed_while_it_waits_the_next_delivery_knows_what_to_go_back_to(
    good: bool, kubectl: Kubectl, namespace: str, service: str, predictor: Receiver, line: Line, tmp_path: Path
) -> None:
    promote(line, 1)
    (config,) = hook(namespace, predictor)
    script = textwrap.dedent(f"""
        from sparring.config.hooks import KServeConfig
        from sparring.integrations.deliveries import Line, deliver
        from sparring.store.local import LocalStore
        hook = KServeConfig.model_validate_json({config.model_dump_json()!r})
        deliver(Line(LocalStore({str(tmp_path / "store")!r}).scope("lines/default"), "default"), [hook])
    """)
    child = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    try:
        wait_for(lambda: uri(kubectl, namespace).endswith(FIRST))  # nobody says Ready: it waits
    finally:
        child.kill()
        child.wait()
    begun = serving.latest(line.store, f"{namespace}.champion")
    assert begun is not None
    assert (begun.state, begun.before) == ("switching", BEGUN)
    predictor.plan = lambda seen, count: (200, COMPLETION if good else EMPTY)
    with controller(kubectl, namespace):
        ((_, state, _),) = told(deliver(line, [config]))
    last = serving.latest(line.store, f"{namespace}.champion")
    assert last is not None
    assert (state, last.state) == (("delivered", "serving") if good else ("given_up", "reverted"))
    assert uri(kubectl, namespace) == (f"{line.store.url}/checkpoints/{FIRST}" if good else BEGUN)


def test_who_points_it_elsewhere_meanwhile_has_the_last_word(
    kubectl: Kubectl, namespace: str, service: str, predictor: Receiver, line: Line
) -> None:
    promote(line, 1)
    found: list[Delivery] = []
    thread = threading.Thread(target=lambda: found.extend(deliver(line, hook(namespace, predictor))))
    thread.start()
    wait_for(lambda: uri(kubectl, namespace).endswith(FIRST))
    elsewhere = json.dumps({"spec": {"predictor": {"model": {"storageUri": "s3://models/by-hand"}}}})
    kubectl("-n", namespace, "patch", "inferenceservice", "champion", "--type=merge", "-p", elsewhere)
    thread.join(60)
    ((_, state, detail),) = told(found)
    assert (state, detail) == ("failing", "pointed at s3://models/by-hand by somebody else meanwhile")
    assert uri(kubectl, namespace) == "s3://models/by-hand"
    last = serving.latest(line.store, f"{namespace}.champion")
    assert last is not None and last.state == "switching"


def wait_for(what: Callable[[], bool], seconds: float = 150) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.2)


def test_a_service_that_is_not_there(kubectl: Kubectl, namespace: str, predictor: Receiver, line: Line) -> None:
    promote(line, 1)
    ((_, state, detail),) = told(deliver(line, hook(namespace, predictor)))
    assert state == "failing"
    assert "Kubernetes answered 404" in detail
