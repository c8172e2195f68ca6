#!/usr/bin/env python3
"""Who may write what in the store, from rights.json, for a SeaweedFS or for AWS. Needs nothing but Python.

    rights.py seaweedfs BUCKET/PREFIX [--runs NAMESPACE]   Secrets with fresh keys: … | kubectl apply -f -
    rights.py aws BUCKET/PREFIX [--partition aws]          IAM policies, one JSON object: identity → policy

Every identity reads all of the store; rights.json has what it writes, below `lines/<any line>/`. Secrets are named
sparring-store-<identity>: `read` for the exporter, `round` for overlay cronjob, `submit` for component schedule and
whoever submits, the others for Kubeflow's steps, in the namespace of the runs.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from pathlib import Path
from typing import Any

RIGHTS = Path(__file__).with_name("rights.json")
HOME = {"read": "sparring", "round": "sparring", "submit": "sparring"}
"""Namespace of an identity's Secret; the others' is that of the runs."""
Keys = dict[str, tuple[str, str]]


def seaweedfs_identities(rights: dict[str, list[str]], bucket: str, prefix: str, keys: Keys) -> dict[str, Any]:
    """SeaweedFS's s3.json. A star also matches `/`. Write includes delete, which no step asks for but `prepare`."""
    lines = f"{bucket}/{prefix}lines/*"
    return {
        "identities": [
            {
                "name": name,
                "credentials": [{"accessKey": keys[name][0], "secretKey": keys[name][1]}],
                "actions": [f"Read:{bucket}/{prefix}*", f"List:{bucket}", *(f"Write:{lines}/{key}" for key in written)],
            }
            for name, written in rights.items()
        ]
    }


def aws_policy(written: list[str], bucket: str, prefix: str, partition: str) -> dict[str, Any]:
    """An IAM policy. The champion log is written only where nothing is yet: a record is never replaced or removed."""
    arn = f"arn:{partition}:s3:::{bucket}"
    free = [key for key in written if not key.startswith("champion/") and key != "*"]
    statements = [
        _allow(["s3:ListBucket"], [arn]),
        _allow(["s3:GetObject"], [f"{arn}/{prefix}*"]),
    ]
    if free or "*" in written:
        statements.append(_allow(["s3:PutObject", "s3:AbortMultipartUpload"], _places(free or ["*"], arn, prefix)))
    if kept := [key for key in written if key.startswith("champion/")] or (["champion/*"] if "*" in written else []):
        statements.append({**_allow(["s3:PutObject"], _places(kept, arn, prefix)), "Condition": _ABSENT})
    if "*" in written:
        over = {"Null": {"s3:if-none-match": "true"}}
        place = _places(["champion/*"], arn, prefix)
        statements.append({"Effect": "Deny", "Action": ["s3:PutObject"], "Resource": place, "Condition": over})
    if "checks/*" in written or "*" in written:  # the only things that a step removes: what it raced for
        statements.append(_allow(["s3:DeleteObject"], _places(["checks/*"], arn, prefix)))
    return {"Version": "2012-10-17", "Statement": statements}


_ABSENT = {"Null": {"s3:if-none-match": "false"}}  # the put carries If-None-Match


def _allow(actions: list[str], places: list[str]) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": places}


def _places(keys: list[str], arn: str, prefix: str) -> list[str]:
    return [f"{arn}/{prefix}lines/*/{key}" for key in keys]


def secret(name: str, namespace: str, data: dict[str, str]) -> dict[str, Any]:
    """A Secret."""
    metadata = {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/part-of": "sparring"}}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}


def seaweedfs_secrets(rights: dict[str, list[str]], bucket: str, prefix: str, runs: str | None) -> dict[str, Any]:
    """The server's Secret and each identity's, with fresh keys. Without `runs` only those of namespace sparring."""
    home = {name: HOME.get(name, runs) for name in rights}
    used = {name: written for name, written in rights.items() if home[name]}
    keys: Keys = {name: (f"sparring-{name}-{secrets.token_hex(4)}", secrets.token_urlsafe(30)) for name in used}
    config = json.dumps(seaweedfs_identities(used, bucket, prefix, keys), indent=1)
    found = [secret("sparring-store-identities", "sparring-store", {"s3.json": config})]
    for name, (access, hidden) in keys.items():
        data = {"AWS_ACCESS_KEY_ID": access, "AWS_SECRET_ACCESS_KEY": hidden}
        found.append(secret(f"sparring-store-{name}", str(home[name]), data))
    return {"apiVersion": "v1", "kind": "List", "items": found}


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", choices=["seaweedfs", "aws"])
    parser.add_argument("place", help="BUCKET or BUCKET/PREFIX, as in the run file's `store`")
    parser.add_argument("--runs", help="namespace of Kubeflow's runs: also makes each step's Secret there")
    parser.add_argument("--partition", default="aws")
    options = parser.parse_args()
    bucket, _, prefix = options.place.removeprefix("s3://").strip("/").partition("/")
    prefix = f"{prefix}/" if prefix else ""
    rights: dict[str, list[str]] = json.loads(RIGHTS.read_text(encoding="utf-8"))
    if options.server == "seaweedfs":
        made: dict[str, Any] = seaweedfs_secrets(rights, bucket, prefix, options.runs)
    else:
        made = {name: aws_policy(written, bucket, prefix, options.partition) for name, written in rights.items()}
    json.dump(made, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
