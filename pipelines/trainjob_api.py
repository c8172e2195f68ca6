"""TrainJobs through the Kubernetes API: made, looked at, their pod's log copied, removed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pipelines.kube import TIMEOUT, Kube
from pipelines.trainjob_body import API, NODE
from sparring.errors import ClusterError

_PLURAL: Final = {**API, "plural": "trainjobs"}
_POD_LABEL: Final = "jobset.sigs.k8s.io/jobset-name"
_SLACK_SECONDS: Final = 30
"""Asked for again with every look at a log, and left out by their time stamps: clocks and looks are not exact."""
_CAUSE_LINES: Final = 5
NO_POD: Final = "it has no pod: `kubectl describe` of TrainJob, JobSet and Job says why (quota, admission)"


@dataclass(frozen=True)
class Ended:
    """How a job ended, and why it failed."""

    kind: Literal["Complete", "Failed"]
    why: str


@dataclass(frozen=True)
class Found:
    """A job that is there. `end` is None while it has not ended, `queued` says that it is held back."""

    annotations: Mapping[str, str]
    end: Ended | None
    queued: str


class TrainJobs(Kube):
    """The TrainJobs of one namespace, and the log of the one that is followed."""

    def __init__(self, namespace: str) -> None:
        super().__init__(namespace)
        self._log = _Log()

    def make(self, job: dict[str, Any]) -> None:
        """Raises ClusterError, also when there is one of that name."""
        name = job["metadata"]["name"]
        with self._asking(f"a new TrainJob {name!r}"):
            self._custom.create_namespaced_custom_object(
                namespace=self.namespace, body=job, _request_timeout=TIMEOUT, **_PLURAL
            )

    def find(self, name: str) -> Found | None:
        """The job, None when there is none."""
        found = self._find("TrainJob", name, self._custom.get_namespaced_custom_object, *API.values(), self.namespace,
                           _PLURAL["plural"], name)  # fmt: skip
        if found is None:
            return None
        conditions = {c["type"]: c for c in found.get("status", {}).get("conditions", []) if c["status"] == "True"}
        leaving = "deletionTimestamp" in found["metadata"]
        end = Ended("Failed", "it is being removed") if leaving else _end(conditions)
        return Found(found["metadata"].get("annotations", {}), end, _said(conditions.get("Suspended")))

    def delete(self, name: str) -> None:
        """Removes the job and its pods, if it is there."""
        self._find(
            "TrainJob",
            name,
            lambda *at, **how: self._custom.delete_namespaced_custom_object(
                *at, propagation_policy="Foreground", **how
            ),
            *API.values(), self.namespace, _PLURAL["plural"], name,
        )  # fmt: skip

    def until_gone(self, name: str, seconds: float) -> None:
        """Returns when the job is gone. Raises ClusterError after `seconds`."""
        end = time.monotonic() + seconds
        while self.find(name) is not None:
            if time.monotonic() > end:
                raise ClusterError(
                    f"TrainJob {name}, which has ended, is still there {seconds:.0f} s after its removal"
                )
            time.sleep(1.0)

    def new_lines(self, name: str, *, last: bool = False) -> list[str]:
        """What the job's pod has printed since the last look; `last`: what has no line's end yet too."""
        pods = self._pods(name)
        if not pods or pods[-1].status.phase == "Pending":
            return []
        pod, now = pods[-1].metadata.name, time.monotonic()
        text = self._read_log(pod, self._log.since(pod, now))
        return self._log.new(pod, now, text, last=last)

    def _read_log(self, pod: str, since: int | None) -> str:
        def read(**how: Any) -> Any:
            return self._core.read_namespaced_pod_log(
                pod, self.namespace, container=NODE, timestamps=True, since_seconds=since, _request_timeout=TIMEOUT,
                **how,
            )  # fmt: skip

        with self._asking(f"log of pod {pod!r}"):
            try:
                return str(read())
            except UnicodeDecodeError:  # the client wants UTF-8, a pod prints what it likes
                return bytes(read(_preload_content=False).data).decode("utf-8", "replace")

    def trouble(self, name: str, found: Found) -> str:
        """Why the job does not run; "" while it does or may soon."""
        if found.queued:
            return found.queued
        pods = self.pods(f"{_POD_LABEL}={name}")
        return next((pod.trouble for pod in pods if pod.trouble), "") if pods else NO_POD

    def cause(self, name: str, end: Ended) -> str:
        """Why it failed: what its pod died of and said last, else what its condition says."""
        try:
            pods = [pod for pod in self.pods(f"{_POD_LABEL}={name}") if pod.trouble]
            last = self.last_lines(pods[-1].name, _CAUSE_LINES, NODE) if pods else []
        except ClusterError:
            return end.why
        said = [" ".join(text.split()) for text in last if text.strip()]
        return ": ".join([pods[-1].trouble, *said]) if pods else end.why

    def _pods(self, name: str) -> list[Any]:
        with self._asking("pods"):
            found = self._core.list_namespaced_pod(
                self.namespace, label_selector=f"{_POD_LABEL}={name}", _request_timeout=TIMEOUT
            ).items
        return sorted(found, key=lambda pod: pod.metadata.creation_timestamp)


class _Log:
    """Which lines of a pod's log were copied, by the time stamps that the kubelet gives them."""

    def __init__(self) -> None:
        self._pod, self._looked = "", 0.0
        self._last, self._at_last = "", set[str]()

    def since(self, pod: str, now: float) -> int | None:
        """Seconds of the log to ask for: all of a pod that was not read before."""
        return int(now - self._looked) + _SLACK_SECONDS if pod == self._pod else None

    def new(self, pod: str, now: float, text: str, *, last: bool = False) -> list[str]:
        """The lines of what was read, without their stamps, that were not given before.

        One without its end comes the next time, unless this is the `last`.
        """
        if pod != self._pod:
            self._pod, self._last, self._at_last = pod, "", set()
        self._looked, found = now, []
        lines = text.split("\n")
        for line in lines if last and lines[-1] else lines[:-1]:
            stamp, _, said = line.partition(" ")
            if stamp < self._last or (stamp == self._last and line in self._at_last):
                continue
            if stamp > self._last:
                self._last, self._at_last = stamp, set()
            self._at_last.add(line)
            found.append(said)
        return found


def _end(conditions: Mapping[str, Mapping[str, Any]]) -> Ended | None:
    if "Complete" in conditions:
        return Ended("Complete", "")
    return Ended("Failed", _said(conditions["Failed"])) if "Failed" in conditions else None


def _said(condition: Mapping[str, Any] | None) -> str:
    parts = (condition or {}).get("reason"), (condition or {}).get("message")
    return ": ".join(part for part in parts if part)
