"""Writes an image's bill of materials while it is built: its Python packages by cyclonedx-bom, and Debian's.

python3 sbom.py PYTHON OUT.json: PYTHON is the interpreter of the image's packages. Scanners read the file as it is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

_FORMAT = "${Package}\t${Version}\t${Architecture}\t${source:Package}\n"


def debian_components() -> list[dict[str, str]]:
    """Every package that dpkg has installed, as CycloneDX components."""
    command = ["dpkg-query", "--show", f"--showformat={_FORMAT}"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [_component(*line.split("\t")) for line in listed]


def _component(name: str, version: str, architecture: str, source: str) -> dict[str, str]:
    where = f"arch={architecture}&upstream={source}"
    purl = f"pkg:deb/debian/{quote(name, safe='')}@{quote(version, safe='')}?{where}"
    return {"bom-ref": f"deb:{name}", "type": "library", "name": name, "version": version, "purl": purl}


def main(python: str, out: Path) -> None:
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", python]
    bill = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    bill["components"] += debian_components()
    out.write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
