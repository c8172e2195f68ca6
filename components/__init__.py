"""Thin Kubeflow components, one a step: each calls the installed engine and does nothing else.

`run` is one JSON object {"store", "line", "config"}: where the round lives and the digest of its configuration there.
Nothing big and no text from a prompt travels as a parameter: Argo would substitute `{{…}}` in it.
"""

from __future__ import annotations

from typing import Final

from sparring import __version__

IMAGE: Final = f"sparring-train:{__version__}"
"""What a component names until it stands in a pipeline, where section `cluster` of the run file names its image."""
