"""Kubeflow Pipelines behind the few things that we ask of it. Whatever its client raises becomes one clear line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import ssl
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import httpx2
import kfp_server_api
from kfp import client as kfp_client
from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials
from pydantic import ValidationError
from urllib3.exceptions import HTTPError

from pipelines.package import Package
from sparring.config.cluster import ClusterConfig
from sparring.errors import ClusterError, NotFoundError
from sparring.steps.entry import RunRequest

ENDPOINT_VARIABLE: Final = "KFP_ENDPOINT"
TOKEN_VARIABLE: Final = "KFP_TOKEN"
"""Environment variable with a bearer token, where no service account's token is mounted."""
IN_CLUSTER: Final = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
_ENDED: Final = frozenset({"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"})
_HEALTH: Final = "/apis/v2beta1/healthz"
_SECONDS: Final = 10.0
_PAGE: Final = 100


@dataclass(frozen=True)
class Run:
    """One run as Kubeflow tells it; `state` is its word and no outcome of ours. `schedule`: id of a recurring run."""

    id: str
    name: str
    state: str
    created: datetime
    schedule: str
    request: RunRequest | None

    @property
    def ended(self) -> bool:
        """Whether Kubeflow has finished with it."""
        return self.state in _ENDED


@dataclass(frozen=True)
class Schedule:
    """A recurring run. `cron` has six fields."""

    id: str
    name: str
    cron: str
    enabled: bool
    max_concurrency: int
    no_catchup: bool
    version: str
    service_account: str
    request: RunRequest | None


class Backend:
    """One Kubeflow Pipelines installation, seen from one namespace and experiment."""

    def __init__(self, cluster: ClusterConfig) -> None:
        """Connects. Raises ClusterError when nobody answers there."""
        self.url = cluster.endpoint or os.environ.get(ENDPOINT_VARIABLE) or IN_CLUSTER
        self._cluster = cluster
        self._namespace = cluster.namespace if _look(self.url, _token(), cluster.ca_file) else None
        with self._asking("be reached"):
            self._client = _connect(self.url, cluster.ca_file)

    def upload(self, package: Package) -> tuple[str, str]:
        """Ids of pipeline and version; each is made only when there is none of its name."""
        with self._asking(f"take pipeline {package.name!r}"):
            pipeline = self._pipeline(package.name)
            found = _named(self._versions(pipeline), package.version)
            if found:
                return pipeline, str(found.pipeline_version_id)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "round.yaml"
                path.write_text(package.text, encoding="utf-8")
                made = self._client.upload_pipeline_version(str(path), package.version, pipeline_id=pipeline)
            return pipeline, str(made.pipeline_version_id)

    def start(self, name: str, version: tuple[str, str], request: RunRequest) -> str:
        """Starts a run and returns its id."""
        with self._asking(f"start run {name!r}"):
            run = self._client.run_pipeline(
                experiment_id=self._experiment,
                job_name=name,
                pipeline_id=version[0],
                version_id=version[1],
                params={"run": request.model_dump_json()},
                service_account=self._cluster.service_account,
            )
            return str(run.run_id)

    def run(self, run_id: str) -> Run:
        """One run. Raises NotFoundError."""
        with self._asking(f"find run {run_id!r}"):
            return _run(self._client.get_run(run_id))

    def runs(self, limit: int) -> list[Run]:
        """The newest runs of our experiment, newest first."""
        with self._asking("list runs"):
            experiment = self._experiment

            def page(token: str) -> Any:
                return self._client.list_runs(
                    page_token=token,
                    page_size=min(limit, _PAGE),
                    sort_by="created_at desc",
                    experiment_id=experiment,
                )

            return [_run(run) for run in _paged(page, "runs", limit)]

    def schedules(self) -> list[Schedule]:
        """All recurring runs of our experiment."""
        with self._asking("list recurring runs"):
            experiment = self._experiment

            def page(token: str) -> Any:
                return self._client.list_recurring_runs(page_token=token, page_size=_PAGE, experiment_id=experiment)

            return [_schedule(one) for one in _paged(page, "recurring_runs")]

    def schedule(self, name: str, cron: str, version: tuple[str, str], request: RunRequest) -> str:
        """Makes a recurring run, one at a time and without catching up on missed times, and returns its id."""
        with self._asking(f"make recurring run {name!r}"):
            made = self._client.create_recurring_run(
                experiment_id=self._experiment,
                job_name=name,
                cron_expression=cron,
                max_concurrency=1,
                no_catchup=True,
                pipeline_id=version[0],
                version_id=version[1],
                params={"run": request.model_dump_json()},
                service_account=self._cluster.service_account,
            )
            return str(made.recurring_run_id)

    def disable(self, schedule: Schedule) -> None:
        """Lets a recurring run start nothing more."""
        with self._asking(f"disable recurring run {schedule.name!r}"):
            self._client.disable_recurring_run(schedule.id)

    def delete(self, schedule: Schedule) -> None:
        """Removes a recurring run, and with it the pods of its runs: only when none is in flight."""
        with self._asking(f"delete recurring run {schedule.name!r}"):
            self._client.delete_recurring_run(schedule.id)

    def _pipeline(self, name: str) -> str:
        wanted = json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})
        found = self._client.list_pipelines(namespace=self._namespace, filter=wanted, page_size=2).pipelines
        if found:
            return str(found[0].pipeline_id)
        made = kfp_server_api.V2beta1Pipeline(display_name=name, name=name, namespace=self._namespace)
        return str(self._client.pipelines.pipeline_service_create_pipeline(made).pipeline_id)

    def _versions(self, pipeline: str) -> Iterator[Any]:
        def page(token: str) -> Any:
            return self._client.list_pipeline_versions(
                pipeline, page_token=token, page_size=_PAGE, sort_by="created_at desc"
            )

        return _paged(page, "pipeline_versions")

    @cached_property
    def _experiment(self) -> str:
        """Our experiment's id; it is made when there is none."""
        name = self._cluster.experiment
        return str(self._client.create_experiment(name, namespace=self._namespace).experiment_id)

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Its client prints links and warns of its past; its errors are pages of headers."""
        try:
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except kfp_server_api.ApiException as error:
            cls = NotFoundError if error.status == 404 else ClusterError
            raise cls(f"Kubeflow at {self.url} did not {what}: {_reply(error)}", hint=_advice(error.status)) from error
        except (HTTPError, TimeoutError, OSError, ValueError) as error:
            raise ClusterError(f"Kubeflow at {self.url} did not {what}: {' '.join(str(error).split())}") from error


def _look(url: str, token: str | None, ca_file: str | None) -> bool:
    """Whether the installation has several users. Its client would try for half a minute and print tracebacks."""
    if not url.startswith(("http://", "https://")):
        raise ClusterError(f"cluster.endpoint {url!r} is no http or https address")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        trust = ssl.create_default_context(cafile=ca_file) if ca_file else True
        answer = httpx2.get(
            f"{url.rstrip('/')}{_HEALTH}", headers=headers, timeout=_SECONDS, verify=trust, trust_env=False
        )
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        hint = f"set cluster.endpoint or {ENDPOINT_VARIABLE} to the address of its API"
        raise ClusterError(f"Kubeflow Pipelines at {url} cannot be reached: {error}", hint=hint) from error
    try:
        found = answer.raise_for_status().json()
        return bool(found.get("multi_user") or found.get("multiUser"))
    except (httpx2.HTTPStatusError, ValueError, AttributeError) as error:
        told = f"answers {answer.status_code}" + ("" if answer.is_error else ", and not as its API does")
        advice = _advice(401 if answer.is_redirect else answer.status_code)
        raise ClusterError(f"Kubeflow Pipelines at {url} {told}", hint=advice) from error


def _token_file() -> Path:
    """Where Kubernetes mounts a token for Kubeflow, if it does."""
    return Path(os.environ.get(kfp_client.KF_PIPELINES_SA_TOKEN_ENV) or kfp_client.KF_PIPELINES_SA_TOKEN_PATH)


def _token() -> str | None:
    """The token that is given, else the mounted one. Raises ClusterError, which does not tell it."""
    file = _token_file()
    try:
        found = _given_token() or (file.read_text(encoding="utf-8").strip() if file.exists() else None)
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"the token in {str(file)!r} cannot be read ({type(error).__name__})") from error
    if found and not (found.isascii() and found.isprintable()):  # a header cannot hold it, and HTTP libraries print it
        where = TOKEN_VARIABLE if _given_token() else repr(str(file))
        raise ClusterError(f"the token for Kubeflow in {where} is none: it has line breaks or characters beyond ASCII")
    return found


def _given_token() -> str | None:
    """As Secrets often hold it: with a line break at its end."""
    return os.environ.get(TOKEN_VARIABLE, "").strip() or None


def _connect(url: str, ca_file: str | None) -> Any:
    """A mounted token is read again for each request: Kubernetes renews it."""
    given, file = _given_token(), _token_file()
    mounted = ServiceAccountTokenVolumeCredentials(str(file)) if file.exists() and not given else None
    return kfp_client.Client(host=url, existing_token=given, credentials=mounted, ssl_ca_cert=ca_file)


def _paged(page: Callable[[str], Any], field: str, limit: int = 10_000) -> Iterator[Any]:
    token, left = "", limit
    while left > 0:
        answer = page(token)
        found = getattr(answer, field) or []
        yield from found[:left]
        left -= len(found)
        token = answer.next_page_token
        if not token:
            return


def _named(things: Iterator[Any], name: str) -> Any:
    return next((thing for thing in things if thing.display_name == name), None)


def _run(run: Any) -> Run:
    return Run(
        str(run.run_id), str(run.display_name), str(run.state or "PENDING"), run.created_at,
        str(run.recurring_run_id or ""), _request(run.runtime_config),
    )  # fmt: skip


def _schedule(one: Any) -> Schedule:
    cron = one.trigger.cron_schedule.cron if one.trigger and one.trigger.cron_schedule else ""
    reference = one.pipeline_version_reference
    return Schedule(
        id=str(one.recurring_run_id),
        name=str(one.display_name),
        cron=str(cron or ""),
        enabled=str(one.status) == "ENABLED",
        max_concurrency=int(one.max_concurrency or 0),
        no_catchup=bool(one.no_catchup),
        version=str(reference.pipeline_version_id) if reference else "",
        service_account=str(one.service_account or ""),
        request=_request(one.runtime_config),
    )


def _request(config: Any) -> RunRequest | None:
    """What a run was told; None for a run of somebody else's pipeline."""
    try:
        return RunRequest.model_validate_json((config.parameters or {})["run"])
    except (ValidationError, KeyError, AttributeError, TypeError):
        return None


def _reply(error: Any) -> str:
    """The message in an answer of the API."""
    try:
        body = json.loads(error.body)
        text = str(body.get("message") or body.get("error") or error.reason)
    except (TypeError, ValueError, AttributeError):
        text = str(error.body or error.reason or error)
    return f"{error.status} {' '.join(text.split())[:400]}"


def _advice(status: int | None) -> str | None:
    if status in (401, 403):
        return f"set {TOKEN_VARIABLE}, or mount a service account's token with the audience pipelines.kubeflow.org"
    return None
