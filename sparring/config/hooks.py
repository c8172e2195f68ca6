"""Section `hooks`: who is told of a decision, and what serves the champion. Secrets are named here, never written.

An address that is a secret itself (a Slack webhook) is named by environment variable or file; so are keys and tokens.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

from pydantic import AfterValidator, Field, field_validator, model_validator

from sparring.config.cluster import DnsName
from sparring.config.section import Name, Section

Event = Literal["promote", "hold", "invalid", "approval", "rollback"]
EVENTS: Final[tuple[Event, ...]] = get_args(Event)
"""promote: a new champion (by the gate, an approval or an override); hold: REJECT or INCONCLUSIVE; invalid: the
evaluation could not carry a decision; approval: a candidate waits for a person; rollback: an earlier champion again."""


def _http(url: str) -> str:
    scheme, _, rest = url.partition("://")
    if scheme not in ("http", "https") or not rest.strip("/") or "@" in rest.partition("/")[0]:
        raise ValueError("should be http://host… or https://host… without a name and password in it")
    return url.rstrip("/")


Url = Annotated[str, AfterValidator(_http)]
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]


class SecretName(Section):
    """Where a secret lies."""

    env: EnvName | None = Field(None, description="Environment variable that holds it.")
    file: str | None = Field(None, description="Mounted file that holds it; blanks at its ends are cut.")

    @model_validator(mode="after")
    def _one(self) -> SecretName:
        if (self.env is None) == (self.file is None):
            raise ValueError("should name either env or file")
        return self


class Hook(Section):
    """What all hooks share."""

    name: Name = Field(description="Name in records, metrics and `sparring hooks`.")
    timeout_s: float = Field(10.0, gt=0, le=300, description="Most seconds of one request.")
    attempts: int = Field(4, ge=1, le=20, description="Requests of one delivery before it waits for the next one.")
    deliveries: int = Field(
        10, ge=1, le=1000, description="Deliveries (one a round, or `sparring hooks deliver`) before it is given up."
    )
    ca_file: str | None = Field(None, description="PEM file with the certificate authority of an https address.")


class WebhookConfig(Hook):
    """JSON by POST, signed with HMAC-SHA256."""

    kind: Literal["webhook"]
    on: list[Event] = Field(list(EVENTS), min_length=1, description="Events that are told.")
    url: Url = Field(description="Address that takes the POST.")
    secret: SecretName = Field(description="Key of the signature in `X-Sparring-Signature`.")


class SlackConfig(Hook):
    """A line in a channel, by an incoming webhook of Slack's or of anything that understands its form."""

    kind: Literal["slack"]
    on: list[Event] = Field(list(EVENTS), min_length=1, description="Events that are told.")
    url: SecretName = Field(description="Where the incoming webhook's address, which is a secret, lies.")


class AlertmanagerConfig(Hook):
    """An alert by Alertmanager's API, version 2. Whatever happens next ends it, an alert or not."""

    kind: Literal["alertmanager"]
    on: list[Event] = Field(["invalid", "approval", "rollback"], min_length=1, description="Events that are alerts.")
    url: Url = Field(description="Alertmanager's address, without `/api/v2`.")
    hours: float = Field(24.0, gt=0, description="Hours after which an alert that nobody renews ends by itself.")
    labels: dict[str, str] = Field({}, description="Further labels, as `team: safety`.")


class KServeConfig(Hook):
    """The InferenceService that serves the champion is pointed at it, looked at, and turned back if it fails."""

    kind: Literal["kserve"]
    namespace: DnsName = Field(description="Namespace of the InferenceService.")
    service: DnsName = Field(description="Name of the InferenceService.")
    uri: str = Field(
        "{store}/checkpoints/{digest}",
        description="Storage URI that is set; `{store}` is the line's store, `{digest}` the champion.",
    )
    ready_s: float = Field(900.0, gt=0, description="Most seconds until it is Ready with the new model.")
    smoke: list[str] = Field(
        ["Name three colours."], description="Prompts that it must answer with words; none: no smoke test."
    )
    smoke_url: Url | None = Field(
        None,
        description="OpenAI-compatible base, as `https://host/openai/v1`; else the service's own address with that.",
    )
    model: str | None = Field(None, description="Model name in those requests; else the InferenceService's name.")

    @field_validator("uri")
    @classmethod
    def _filled(cls, uri: str) -> str:
        try:
            filled = uri.format(store="s3://store", digest="0" * 64)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise ValueError("should have no braces but {store} and {digest}") from error
        if "0" * 64 not in filled:
            raise ValueError("should hold {digest}")
        return uri


class MlflowConfig(Hook):
    """A version in MLflow's model registry, by its REST API."""

    kind: Literal["mlflow"]
    url: Url = Field(description="Address of the tracking server.")
    model: str = Field(pattern=r'^[^"/:]+$', description="Registered model, without / : and quotes; made if absent.")
    token: SecretName | None = Field(None, description="Bearer token.")


class ModelRegistryConfig(Hook):
    """A version in Kubeflow's Model Registry, by its REST API (v1, or v1alpha3 where that is all)."""

    kind: Literal["model_registry"]
    url: Url = Field(description="Address of the registry.")
    model: str = Field(min_length=1, description="Registered model; made if absent.")
    token: SecretName | None = Field(None, description="Bearer token.")


def secrets_of(hook: Hook) -> list[SecretName]:
    """Where the secrets lie that the hook needs."""
    named = (getattr(hook, name) for name in ("secret", "url", "token") if hasattr(hook, name))
    return [found for found in named if isinstance(found, SecretName)]


HookConfig = Annotated[
    WebhookConfig | SlackConfig | AlertmanagerConfig | KServeConfig | MlflowConfig | ModelRegistryConfig,
    Field(discriminator="kind"),
]
