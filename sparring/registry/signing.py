"""OpenSSF signatures of checkpoints (package `model-signing`, extra `sign`): an EC key pair, no network.

What is signed is the checkpoint's manifest, names and SHA-256 of every file, in the format of OpenSSF Model Signing: no
blob is read for it, and the signature holds for the exported folder too, where any OMS tool verifies it. It lies
beside the checkpoint as `checkpoints/<digest>/model.sig`; signing again replaces it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path, PurePosixPath
from typing import Any

from sparring.errors import CorruptError, NotFoundError, SetupError, UsageError
from sparring.registry.checkpoints import Manifest, load_manifest
from sparring.store.base import Store

SIGNATURE = "model.sig"
"""Name of the signature beside a checkpoint's blobs and in an exported folder."""

NOT_SIGNED = ("README.md", SIGNATURE)
"""What an export adds to the signed files."""

_BAD_KEY = (ValueError, TypeError, AttributeError)
_BAD_SIGNATURE = (ValueError, TypeError, AttributeError, LookupError, RecursionError)


def sign_checkpoint(store: Store, digest: str, key: Path, password: bytes | None = None) -> None:
    """Signs a checkpoint's manifest with the private key in a PEM file (curves P-256, P-384, P-521).

    Raises SetupError without the package, UsageError for the key, NotFoundError and CorruptError for the checkpoint.
    """
    library, manifest = _library(), load_manifest(store, digest)
    _readable(key, "private")
    signer = library.signing.Config().set_hashing_config(_as_hashed(library, manifest))
    try:
        signer.use_elliptic_key_signer(private_key=key, password=password)
    except _BAD_KEY as error:
        raise _wrong_key(key, "private", error) from error
    with tempfile.TemporaryDirectory(prefix="sparring-sign-") as scratch:
        place = Path(scratch) / SIGNATURE
        signer.sign(Path(digest), place)
        store.put(_key(digest), place.read_bytes())


def key_from_env(variable: str) -> Path:
    """The private key's file that an environment variable names. Raises SetupError when it names none."""
    path = Path(os.environ.get(variable) or "").expanduser()
    if not path.is_file():
        raise SetupError(f"environment variable {variable} (registry.sign_key_env) names no key file")
    return path


def password_from_env() -> bytes | None:
    """What opens an encrypted private key: SPARRING_SIGN_PASSWORD, if it is set."""
    password = os.environ.get("SPARRING_SIGN_PASSWORD")
    return password.encode() if password else None


def verify_signature(store: Store, digest: str, key: Path) -> None:
    """Holds a checkpoint's signature against its manifest and the public key in a PEM file.

    The blobs are held against the manifest whenever they are loaded. Raises CorruptError when there is no signature,
    another key made it, or it is of other files; SetupError, UsageError, NotFoundError as `sign_checkpoint`.
    """
    library, manifest = _library(), load_manifest(store, digest)
    _readable(key, "public")
    verifier = library.verifying.Config().set_hashing_config(_as_hashed(library, manifest))
    try:
        verifier.use_elliptic_key_verifier(public_key=key)
    except _BAD_KEY as error:
        raise _wrong_key(key, "public", error) from error
    data = read_signature(store, digest)
    if data is None:
        raise CorruptError(f"checkpoint {digest} in {store.url} has no signature", hint="sign it: `sparring sign`")
    with tempfile.TemporaryDirectory(prefix="sparring-verify-") as scratch:
        place = Path(scratch) / SIGNATURE
        place.write_bytes(data)
        try:
            with redirect_stdout(sys.stderr):  # the library prints warnings there
                verifier.verify(Path(digest), place)
        except (*_BAD_SIGNATURE, library.invalid) as error:
            why = " ".join(str(error).split())[:300] or "the key did not make it"
            raise CorruptError(f"checkpoint {digest}: its signature does not hold for key {key}: {why}") from error


def read_signature(store: Store, digest: str) -> bytes | None:
    """The stored signature, None when there is none."""
    try:
        return store.get(_key(digest))
    except NotFoundError:
        return None


def _key(digest: str) -> str:
    return f"checkpoints/{digest}/{SIGNATURE}"


class _Library:
    """The parts of `model-signing` and `cryptography` that are used, imported when they are needed."""

    def __init__(self) -> None:
        from cryptography.exceptions import InvalidSignature
        from model_signing import hashing, manifest, signing, verifying

        self.hashing, self.manifest, self.signing, self.verifying = hashing, manifest, signing, verifying
        self.invalid = InvalidSignature


def _library() -> _Library:
    try:
        return _Library()
    except ImportError as error:
        raise SetupError(
            f"signatures need the packages of the extra `sign` ({error})",
            hint="pip install 'sparring[sign]' pyOpenSSL (model-signing 1.1 needs it and does not say so)",
        ) from error


def _as_hashed(library: _Library, manifest: Manifest) -> Any:
    """A hashing configuration that takes names and hashes from our manifest in place of reading a folder."""
    arguments = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": list(NOT_SIGNED)}
    form = library.manifest.SerializationType.from_args(arguments)
    digest_of = library.hashing.hashing.Digest
    items = [
        form.new_item(str(PurePosixPath(file.name)), digest_of("sha256", bytes.fromhex(file.sha256)))
        for file in sorted(manifest.files, key=lambda file: file.name)
    ]
    hashed = library.manifest.Manifest(manifest.digest, items, form)

    class Hashed(library.hashing.Config):  # type: ignore[misc, name-defined]
        """Ignores the folder that it is asked to hash."""

        def hash(self, model_path: object, *, files_to_hash: object = None) -> Any:
            return hashed

    return Hashed()


def _readable(key: Path, what: str) -> None:
    try:
        key.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the {what} key {key}: {error.strerror}") from error


def _wrong_key(key: Path, what: str, error: Exception) -> UsageError:
    why = " ".join(str(error).split())[:200]
    return UsageError(
        f"{key} is no usable {what} key: {why}", hint="use a PEM file of an EC key, P-256, P-384 or P-521"
    )
