"""Copies every image that manifests and compiled pipelines name into a registry of one's own, for a closed network.

kubectl kustomize OVERLAY | python3 images/mirror.py --to registry.example/sparring - round.yaml
prints what it would do; with --run skopeo does it.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml


def images(document: Any) -> Iterator[str]:
    """Every text under a key `image`, however deep: pods in manifests, executors in a compiled pipeline."""
    if isinstance(document, dict):
        if isinstance(document.get("image"), str):
            yield document["image"]
        for value in document.values():
            yield from images(value)
    elif isinstance(document, list):
        for value in document:
            yield from images(value)


def target(image: str, registry: str) -> str:
    """Where an image goes: its name without its registry, and its tag or digest, below `registry`."""
    host, slash, rest = image.partition("/")
    name = rest if slash and (host == "localhost" or set(host) & set(".:")) else image
    return f"{registry.rstrip('/')}/{name}"


def copies(texts: list[str], registry: str) -> list[list[str]]:
    """One skopeo command an image; all platforms, and the bytes as they are, so that digests stay.

    Raises ValueError when two images would land under one name.
    """
    found = {image for text in texts for document in yaml.safe_load_all(text) for image in images(document)}
    if len({target(image, registry) for image in found}) < len(found):
        raise ValueError(f"two of these would have one name in {registry}: {', '.join(sorted(found))}")
    command = ["skopeo", "copy", "--all", "--preserve-digests"]
    return [[*command, f"docker://{image}", f"docker://{target(image, registry)}"] for image in sorted(found)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", required=True, metavar="REGISTRY", help="registry and path the images are copied to")
    parser.add_argument("--run", action="store_true", help="copy; without it the commands are only printed")
    parser.add_argument("files", nargs="+", help="rendered manifests and compiled pipelines; - is standard input")
    given = parser.parse_args()
    texts = [sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8") for name in given.files]
    try:
        commands = copies(texts, given.to)
    except (ValueError, yaml.YAMLError) as error:
        sys.exit(f"mirror: {error}")
    if not commands:
        sys.exit("mirror: no image is named in " + ", ".join(given.files))
    for command in commands:
        print(shlex.join(command), flush=True)
        if given.run:
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
