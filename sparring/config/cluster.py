"""Section `cluster`: where and how a round runs on Kubernetes, all of it applied when the pipeline is compiled.

Names only: a secret is named here and never read; its values reach the pods by reference.
"""

from __future__ import annotations

import re
from copy import copy
from typing import Annotated, Any, Final, Literal, cast, get_args

from pydantic import Field, StringConstraints, ValidationError, create_model, field_validator, model_validator

from sparring import __version__
from sparring.config.cron import parse_cron
from sparring.config.section import Section

Step = Literal["prepare", "selfplay", "update_pool", "answer", "judge", "gate", "promote", "hold", "report"]
STEP_NAMES: Final[tuple[Step, ...]] = get_args(Step)

ON_TRAIN_PODS: Final = frozenset({"selfplay", "answer"})
"""Steps that run models. All others are control steps."""
IN_TRAIN_IMAGE: Final = ON_TRAIN_PODS | {"prepare"}
"""Steps that need torch; `prepare` only in a line's first round, when it reads the base model."""

_DNS = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
DnsName = Annotated[str, StringConstraints(pattern=rf"^{_DNS}(\.{_DNS})*$", max_length=253)]
Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$")]
MountPath = Annotated[str, StringConstraints(pattern=r"^/[^:]*[^:/]$")]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
_SECRET = re.compile(r"(KEY|SECRET|TOKEN|PASSWORD|CREDENTIALS?)$", re.IGNORECASE)


class Toleration(Section):
    """A taint that a pod may ignore, as in a pod's specification."""

    key: str | None = Field(None, description="The taint's key; all keys when not given.")
    operator: Literal["Equal", "Exists"] = Field("Exists", description="How the value is compared.")
    value: str | None = Field(None, description="The taint's value, with `Equal`.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="The taint's effect; all effects when not given."
    )

    @model_validator(mode="after")
    def _sound(self) -> Toleration:
        if self.operator == "Equal" and self.key is None:
            raise ValueError("operator Equal needs a key")
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("value belongs to operator Equal")
        return self


class PodConfig(Section):
    """Pods of the control steps: all but `selfplay` and `answer`."""

    cpu: Quantity = Field("500m", description="CPU request of a pod.")
    cpu_limit: Quantity | None = Field(None, description="CPU limit; none when not set.")
    memory: Quantity = Field("2Gi", description="Memory request and limit; the launcher alone needs 64Mi.")
    accelerator: str | None = Field(None, description="Resource name of the accelerator, as in `nvidia.com/gpu`.")
    accelerators: int = Field(0, ge=0, le=64, description="How many of them a pod gets.")
    secrets: dict[DnsName, dict[str, EnvName]] | None = Field(
        None, description="Secrets of these pods instead of `cluster.secrets`, as where only `promote` may write a log."
    )
    node_selector: dict[str, str] = Field({}, description="Labels that the pod's node must carry.")
    tolerations: list[Toleration] = Field([], description="Taints that the pod may ignore.")
    labels: dict[str, str] = Field({}, description="Further labels of the pod.")
    annotations: dict[str, str] = Field({}, description="Further annotations of the pod.")
    timeout_s: int = Field(
        3600, ge=60, description="Seconds after which the pod is ended, waiting included: what else may hang for ever."
    )
    retries: int = Field(
        2,
        ge=0,
        le=10,
        description="Pods started again when one is lost; code that fails is not run again. Never: gate.",
    )
    retry_pause_s: int = Field(30, ge=1, description="Seconds before the first new pod, doubled for each further one.")
    tmp: Quantity | None = Field(None, description="Size limit of the writable `/tmp`; the node's disk when not set.")
    shm: Quantity | None = Field(None, description="Size of `/dev/shm` in memory, which vLLM and NCCL use.")

    @model_validator(mode="after")
    def _named(self) -> PodConfig:
        if bool(self.accelerator) != bool(self.accelerators):
            raise ValueError("accelerator and accelerators should be given together")
        return self


class TrainPodConfig(PodConfig):
    """Pods of `selfplay` and `answer`, which run models."""

    cpu: Quantity = Field("2", description="CPU request of a pod.")
    memory: Quantity = Field("8Gi", description="Memory request and limit.")
    timeout_s: int = Field(86_400, ge=60, description="Seconds after which the pod is ended, waiting included.")


def _optional(model: type[PodConfig]) -> dict[str, Any]:
    """The model's fields with their rules, each of which may be left out."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        free = copy(field)
        free.annotation, free.default = cast(Any, field.annotation | None), None  # type: ignore[operator]
        found[name] = (free.annotation, free)
    return found


StepPodConfig: type[Section] = create_model("StepPodConfig", __base__=Section, **_optional(PodConfig))
StepPodConfig.__doc__ = "What one step's pod has of its own; every key of `control` may stand here."


class ImagesConfig(Section):
    """Images of the steps."""

    control: str = Field(
        f"sparring-control:{__version__}", min_length=1, description="Image of the control steps; it needs no torch."
    )
    train: str = Field(
        f"sparring-train:{__version__}",
        min_length=1,
        description="Image of `selfplay` and `answer`, and of `prepare`, which reads the base model once.",
    )
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field("IfNotPresent", description="When it is pulled.")
    pull_secrets: list[DnsName] = Field([], description="Secrets with credentials of the registry.")


class TrainJobConfig(Section):
    """The TrainJob of `executor: trainjob`; its pod has image, sizes, environment and place of step `selfplay`."""

    runtime: DnsName = Field(
        "sparring-selfplay", description="TrainingRuntime of the namespace, as manifests/components/trainer has it."
    )
    queue: DnsName | None = Field(None, description="LocalQueue of Kueue's that the job waits in; none when not set.")


class ClusterConfig(Section):
    """Kubeflow Pipelines: where the round runs and what its pods are given. A laptop reads nothing of it."""

    endpoint: str | None = Field(
        None, description="Address of the Kubeflow Pipelines API; else KFP_ENDPOINT, else the service in this cluster."
    )
    ca_file: str | None = Field(None, description="PEM file with the certificate authority of that address.")
    namespace: DnsName = Field("kubeflow", description="Namespace of the runs' pods.")
    experiment: str = Field(
        "sparring", min_length=1, description="Experiment that the runs stand under; made if absent."
    )
    pipeline: DnsName = Field("sparring-round", description="Name of the uploaded pipeline.")
    schedule: str | None = Field(
        None, description="Five-field cron that `schedule` takes when none is named, as in `0 3 * * 1`."
    )
    timezone: str = Field(
        "UTC", description="Time zone of the cluster's schedules, its CRON_SCHEDULE_TIMEZONE: only for printing times."
    )
    service_account: DnsName | None = Field(None, description="Service account of the pods; else Kubeflow's own.")
    run_as_user: int = Field(10001, ge=1, description="User id in the pods.")
    run_as_group: int | None = Field(None, ge=1, description="Group id in the pods; the image's when not set.")
    deadline_s: int | None = Field(None, ge=60, description="Seconds after which a whole run is ended.")
    keep_s: int | None = Field(None, ge=0, description="Seconds that an ended run's pods are kept; for ever if unset.")
    secrets: dict[DnsName, dict[str, EnvName]] = Field(
        {},
        description="Secrets as environment: name → key → variable, as in `sparring-store: {key: AWS_ACCESS_KEY_ID}`.",
    )
    env: dict[EnvName, str] = Field({}, description="Plain environment of all pods, as AWS_ENDPOINT_URL. No secrets.")
    claims: dict[DnsName, MountPath] = Field(
        {}, description="Persistent volume claims in every pod: name → folder, for models and data that are no objects."
    )
    images: ImagesConfig = ImagesConfig()
    control: PodConfig = PodConfig()
    train: TrainPodConfig = TrainPodConfig()
    executor: Literal["pod", "trainjob"] = Field(
        "pod",
        description="Where step `selfplay` trains: in its own pod, or in a TrainJob of Kubeflow Trainer that the step, "
        "in a pod of the size of `control`, makes, follows and removes.",
    )
    trainjob: TrainJobConfig = TrainJobConfig()
    steps: dict[Step, StepPodConfig] = Field(
        {}, description="What single steps have of their own: step → keys of `control`, as in `answer: {memory: 16Gi}`."
    )

    @field_validator("schedule")
    @classmethod
    def _cron(cls, schedule: str | None) -> str | None:
        if schedule is not None:
            parse_cron(schedule)
        return schedule

    @field_validator("env")
    @classmethod
    def _no_secrets(cls, env: dict[str, str]) -> dict[str, str]:
        if found := next((name for name in env if _SECRET.search(name)), None):
            raise ValueError(f"should not hold {found}: name a secret with it under cluster.secrets")
        return env

    @model_validator(mode="after")
    def _pods(self) -> ClusterConfig:
        for step in STEP_NAMES:
            try:
                self.pod(step)
            except ValidationError as error:
                raise ValueError(f"steps.{step}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
        return self

    def pod(self, step: Step) -> PodConfig:
        """The pod of a step: `train` or `control`, and over it what stands under `steps`."""
        base = self.train if step in ON_TRAIN_PODS else self.control
        own = self.steps[step].model_dump(exclude_none=True) if step in self.steps else {}
        pod = PodConfig.model_validate({**base.model_dump(), **own})
        return pod.model_copy(update={"retries": 0}) if step == "gate" else pod

    def kubeflow_pod(self, step: Step) -> PodConfig:
        """The pod that Kubeflow Pipelines starts for a step: that of `selfplay` may only wait for a TrainJob."""
        pod = self.pod(step)
        if not self.waits(step):
            return pod
        kept = {name: getattr(pod, name) for name in ("timeout_s", "retries", "retry_pause_s")}
        return self.control.model_copy(update=kept)

    def waits(self, step: Step) -> bool:
        """Whether a step's pod has a TrainJob do the work."""
        return step == "selfplay" and self.executor == "trainjob"

    def kubeflow_image(self, step: Step) -> str:
        """The image of the pod that Kubeflow Pipelines starts for a step."""
        return self.images.control if self.waits(step) else self.image(step)

    def image(self, step: Step) -> str:
        """The image that a step does its work in."""
        return self.images.train if step in IN_TRAIN_IMAGE else self.images.control

    def secrets_of(self, step: Step) -> dict[str, dict[str, str]]:
        """Secrets of a step's pod: name → key → environment variable."""
        own = self.pod(step).secrets
        return self.secrets if own is None else own
