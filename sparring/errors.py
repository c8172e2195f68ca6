"""The whole error vocabulary. The CLI prints one line of it and exits with `exit_code`; nothing else is caught.

SparringError                 1   a fault: anything below that has no code of its own
├── UsageError                2   the user's command, file or setting is wrong
│   ├── ConfigError           2   the run file or a policy file: unknown key, bad value, both named
│   └── DataError             2   a data file: path, row, field
├── SetupError                1   a package, model or program that should be installed is not
├── ModelError                1   a model folder that cannot be used (no weights, pickle only, no tokenizer)
├── StoreError                1   the object store failed or refused
│   ├── NotFoundError         1   no such object
│   ├── ConflictError         1   somebody else wrote first
│   └── CorruptError          1   an object is there but its bytes are not what was written
├── BusyError                 1   another run holds this model line
├── ClusterError              1   Kubernetes or Kubeflow failed, refused, or cannot be reached
├── TrainingError             1   training cannot go on (nothing to learn from)
│   └── TrainingStopped       1   a guard stopped the training; in a round its candidate is held, with the reason
└── InvalidEvaluation        12   the evaluation cannot carry a decision: what is missing, exactly
"""

from __future__ import annotations


class SparringError(Exception):
    """Base of every error that a user may see. `message` says what and where, `hint` says what to do."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(SparringError):
    """The user's command, file or setting is wrong."""

    exit_code = 2


class ConfigError(UsageError):
    """A run file or policy file is wrong: the key, its value and what would be right."""


class DataError(UsageError):
    """A data file is wrong: path, row and field."""


class SetupError(SparringError):
    """Something that should be installed is not."""


class ModelError(SparringError):
    """A model folder that cannot be used."""


class StoreError(SparringError):
    """The object store failed or refused."""


class NotFoundError(StoreError):
    """No such object in the store."""


class ConflictError(StoreError):
    """Somebody else wrote first."""


class CorruptError(StoreError):
    """An object's bytes are not what was written."""


class BusyError(SparringError):
    """Another run holds this model line."""


class ClusterError(SparringError):
    """Kubernetes or Kubeflow failed, refused, or cannot be reached."""


class TrainingError(SparringError):
    """Training cannot go on."""


class TrainingStopped(TrainingError):
    """A guard stopped the training. `model` is what it had trained up to the last good step."""

    def __init__(self, message: str, model: object = None) -> None:
        super().__init__(message, hint="see the learning curves")
        self.model = model


class InvalidEvaluation(SparringError):
    """The evaluation cannot carry a decision."""

    exit_code = 12
