"""Signatures with real keys: they hold for exactly the signed files and key, here and for the stock OMS tool."""

from __future__ import annotations

import json
import subprocess
import sys
from base64 import b64decode
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparring.errors import CorruptError, NotFoundError, SetupError, UsageError
from sparring.registry.checkpoints import load_checkpoint
from sparring.registry.signing import SIGNATURE, read_signature, sign_checkpoint, verify_signature
from sparring.store import Store
from sparring.store.local import LocalStore
from tests.pipelines.planted import plant_model

ROOT = Path(__file__).parents[2]
UNKNOWN = "0" * 64


def test_without_the_package_one_line_names_the_extra(tmp_path: Path) -> None:
    """In a process that cannot import it, whatever is installed here."""
    code = (
        "import sys; sys.modules['model_signing'] = None\n"
        "from pathlib import Path\n"
        "from sparring.registry.signing import verify_signature\n"
        "from sparring.store.local import LocalStore\n"
        f"verify_signature(LocalStore(Path({str(tmp_path)!r})), '0' * 64, Path('key.pub'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert SetupError.__name__ in last and "extra `sign`" in last and "sparring[sign]" in last


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with key pairs of each curve, one with a password, and keys of other kinds."""
    pytest.importorskip("OpenSSL", reason="model-signing 1.1 imports pyOpenSSL, which is not installed")
    pytest.importorskip("model_signing", reason="extra `sign` is not installed")
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    folder = tmp_path_factory.mktemp("keys")
    for name, curve in (("ours", ec.SECP256R1()), ("other", ec.SECP256R1()), ("p384", ec.SECP384R1())):
        write_pair(folder / name, ec.generate_private_key(curve))
    write_pair(folder / "secret", ec.generate_private_key(ec.SECP521R1()), b"word")
    write_pair(folder / "koblitz", ec.generate_private_key(ec.SECP256K1()))
    write_pair(folder / "rsa", rsa.generate_private_key(65537, 2048))
    (folder / "text.pem").write_text("no key")
    (folder / "text.pub").write_text("no key")
    return folder


def write_pair(path: Path, private: object, password: bytes | None = None) -> None:
    from cryptography.hazmat.primitives import serialization as forms

    hidden = forms.BestAvailableEncryption(password) if password else forms.NoEncryption()
    pem, pkcs8 = forms.Encoding.PEM, forms.PrivateFormat.PKCS8
    path.with_suffix(".pem").write_bytes(private.private_bytes(pem, pkcs8, hidden))  # type: ignore[attr-defined]
    public = private.public_key()  # type: ignore[attr-defined]
    path.with_suffix(".pub").write_bytes(public.public_bytes(pem, forms.PublicFormat.SubjectPublicKeyInfo))


@pytest.mark.parametrize("name", ["ours", "p384", "secret"])
def test_a_signature_holds_for_its_key(keys: Path, name: str, any_store: Store, tmp_path: Path) -> None:
    digest = plant_model(any_store, tmp_path, 1.0)
    sign_checkpoint(any_store, digest, keys / f"{name}.pem", b"word" if name == "secret" else None)
    verify_signature(any_store, digest, keys / f"{name}.pub")
    assert any_store.exists(f"checkpoints/{digest}/model.sig")
    assert not (load_checkpoint(any_store, digest, tmp_path / "cache") / SIGNATURE).exists()


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_what_does_not_hold_is_one_clear_line(keys: Path, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    digest, other = plant_model(store, tmp_path, 1.0), plant_model(store, tmp_path, 2.0)
    with pytest.raises(CorruptError, match="has no signature; sign it") as caught:
        verify_signature(store, digest, keys / "ours.pub")
    one_line(caught)
    sign_checkpoint(store, digest, keys / "ours.pem")
    with pytest.raises(CorruptError, match=f"{digest}: its signature does not hold for key .*other.pub: Key mismatch"):
        verify_signature(store, digest, keys / "other.pub")
    store.put(f"checkpoints/{other}/model.sig", read_signature(store, digest) or b"")
    with pytest.raises(CorruptError, match=r"Hash mismatch for 'model\.safetensors'") as caught:
        verify_signature(store, other, keys / "ours.pub")
    one_line(caught)
    with pytest.raises(NotFoundError):
        verify_signature(store, UNKNOWN, keys / "ours.pub")
    with pytest.raises(NotFoundError):
        sign_checkpoint(store, UNKNOWN, keys / "ours.pem")


def test_a_signature_is_replaced_by_the_next(keys: Path, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    digest = plant_model(store, tmp_path, 1.0)
    sign_checkpoint(store, digest, keys / "other.pem")
    sign_checkpoint(store, digest, keys / "ours.pem")
    verify_signature(store, digest, keys / "ours.pub")


@pytest.mark.parametrize("name", ["text", "rsa", "koblitz", "missing", "secret"])
def test_keys_that_cannot_be_used(keys: Path, name: str, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    digest = plant_model(store, tmp_path, 1.0)
    with pytest.raises(UsageError, match=f"{name}.pem") as caught:
        sign_checkpoint(store, digest, keys / f"{name}.pem")
    one_line(caught)
    assert read_signature(store, digest) is None
    if name != "secret":
        with pytest.raises(UsageError, match=f"{name}.pub"):
            verify_signature(store, digest, keys / f"{name}.pub")
    with pytest.raises(UsageError, match="no usable private key"):
        sign_checkpoint(store, digest, keys / "secret.pem", b"wrong word")


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_changed_byte_of_a_signature_passes(
    keys: Path, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Only bytes that carry no meaning may differ: then the parsed bundle is the same."""
    folder = tmp_path_factory.getbasetemp() / "changed-signatures"
    store = LocalStore(folder / "store")
    digest = next(iter({key.split("/")[1] for key in store.list("checkpoints/")}), None)
    digest = digest or plant_model(store, folder, 1.0)
    key = f"checkpoints/{digest}/model.sig"
    if not (folder / "whole").exists():
        sign_checkpoint(store, digest, keys / "ours.pem")
        (folder / "whole").write_bytes(store.get(key))
    whole = (folder / "whole").read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    cut = data.draw(st.integers(0, 2))
    changed = whole[:place] + data.draw(st.binary(max_size=3)) + whole[place + cut :]
    store.put(key, changed)
    try:
        verify_signature(store, digest, keys / "ours.pub")
    except CorruptError as error:
        assert "\n" not in str(error)
    else:
        assert meaning(changed) == meaning(whole)


def meaning(signature: bytes) -> tuple[object, object]:
    """The signed payload and its signature; base64 is read as the library does, which skips what is none."""
    envelope = json.loads(signature)["dsseEnvelope"]
    return b64decode(envelope["payload"]), b64decode(envelope["signatures"][0]["sig"])


@pytest.mark.slow
def test_the_stock_tool_verifies_the_exported_folder(keys: Path, tmp_path: Path) -> None:
    """OpenSSF's own command reads the files themselves; then one byte is changed."""
    store = LocalStore(tmp_path / "store")
    digest = plant_model(store, tmp_path, 1.0)
    sign_checkpoint(store, digest, keys / "ours.pem")
    folder = load_checkpoint(store, digest, tmp_path / "cache")
    (folder / SIGNATURE).write_bytes(read_signature(store, digest) or b"")
    (folder / "README.md").write_text("a card")
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder)]
    command += ["--signature", str(folder / SIGNATURE), "--public_key", str(keys / "ours.pub")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "config.json").write_text("{ }")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "config.json" in done.stdout + done.stderr
