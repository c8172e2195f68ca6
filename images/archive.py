"""Reads an image archive in the OCI layout (buildah's and podman's `oci-archive:`, docker's `save`).

python3 images/archive.py IMAGE.tar [SBOM.json]: prints its size and writes the bill of materials that lies in it.
"""

from __future__ import annotations

import json
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

SBOM: Final = "usr/share/sparring/sbom.json"


@dataclass(frozen=True)
class Layer:
    """A layer as it is stored: `name` inside the archive, `size` in bytes, compressed if `media` says so."""

    name: str
    size: int
    media: str


@dataclass(frozen=True)
class Image:
    """An image's configuration (labels, user, environment) and its layers, lowest first."""

    config: dict[str, Any]
    layers: tuple[Layer, ...]

    @property
    def size(self) -> int:
        """Bytes that a node pulls."""
        return sum(layer.size for layer in self.layers)

    @property
    def compressed(self) -> bool:
        return all(layer.media.endswith(("gzip", "zstd")) for layer in self.layers)


def read_image(path: Path) -> Image:
    """The one image of an archive; raises KeyError where it is in another layout."""
    with tarfile.open(path) as archive:
        document = _json(archive, "index.json")
        while "manifests" in document:
            document = _json(archive, _blob(document["manifests"][0]))
        layers = tuple(Layer(_blob(layer), layer["size"], layer["mediaType"]) for layer in document["layers"])
        return Image(_json(archive, _blob(document["config"]))["config"], layers)


def read_file(path: Path, image: Image, name: str) -> bytes | None:
    """A file of the image, from the uppermost layer that has it; None when there is none."""
    with tarfile.open(path) as archive:
        for layer in reversed(image.layers):
            with tarfile.open(fileobj=archive.extractfile(layer.name)) as files:
                for member in files:
                    found = files.extractfile(member) if member.name.lstrip("./") == name else None
                    if found:
                        return found.read()
    return None


def _blob(descriptor: dict[str, Any]) -> str:
    return "blobs/" + descriptor["digest"].replace(":", "/")


def _json(archive: tarfile.TarFile, name: str) -> dict[str, Any]:
    found = archive.extractfile(name)
    assert found is not None, f"{name} is no file"
    document: dict[str, Any] = json.load(found)
    return document


def main(path: Path, sbom: Path | None = None) -> None:
    try:
        image = read_image(path)
    except KeyError as error:
        sys.exit(f"images: {path} is not in the OCI layout ({error.args[0]}); docker saves in it from version 25 on")
    how = "compressed" if image.compressed else "not compressed"
    print(f"images: {path}: {image.size / 1e6:,.0f} MB {how}, {len(image.layers)} layers")
    if sbom and (bill := read_file(path, image, SBOM)):
        sbom.write_bytes(bill)
        print(f"images: {sbom}: {len(json.loads(bill)['components'])} components")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
