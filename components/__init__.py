"""Thin Kubeflow components, one a step: each calls the installed engine and does nothing else.

`run` is one JSON object {"store", "line", "config"}: where the round lives and the digest of its configuration there.
Nothing big and no text from a prompt travels as a parameter: Argo would substitute `{{…}}` in it.
"""

from __future__ import annotations

import os
from typing import Final

from sparring import __version__

IMAGE: Final = os.environ.get("SPARRING_IMAGE", f"sparring:{__version__}")
"""Image of every step on a cluster, read when compiling. The local runner takes this interpreter instead."""
