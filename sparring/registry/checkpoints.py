"""Content-addressed checkpoints: blobs at `checkpoints/<digest>/<name>`, then `manifest.json`, written last.

A checkpoint without manifest does not exist. The digest is SHA-256 over the canonical list of names, sizes and
hashes, so that neither a blob nor the list can change under it.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import unicodedata
from collections.abc import Collection
from pathlib import Path, PurePath, PurePosixPath

from pydantic import BaseModel, ConfigDict, ValidationError

from sparring.errors import CorruptError, ModelError, NotFoundError, StoreError
from sparring.store.base import Store
from sparring.store.canonical import canonical, sha256, sha256_file
from sparring.store.keys import check_key

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
_KEPT = frozenset({".safetensors", ".json", ".txt", ".jinja", ".model"})
_PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy", ".npz"})
_PICKLE_MAGIC = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")
_MOST_HEADER = 100_000_000  # the safetensors format's own limit
_PIECE = 8 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")


class File(BaseModel):
    """One file of a checkpoint: path below the folder with `/`, size in bytes, SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    size: int
    sha256: str


class Manifest(BaseModel):
    """What a checkpoint consists of. `meta` is free text of the first writer and no part of the digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: int
    digest: str
    files: tuple[File, ...]
    meta: dict[str, str]


def save_checkpoint(store: Store, folder: Path, *, meta: dict[str, str] | None = None) -> str:
    """Stores a model folder and returns its digest; one that is stored already costs only the hashing.

    Kept are safetensors, JSON, text, chat template and SentencePiece files; other files are left out. Raises
    ModelError for a folder without weights or with a pickle, StoreError when the store fails.
    """
    paths = _model_files(folder)
    files = tuple(_describe(folder, path) for path in paths)
    _check_names([file.name for file in files], ModelError, f"model folder {folder}")
    digest = files_digest(files)
    if _renewed(store, digest, files):
        return digest
    for path, file in zip(paths, files, strict=True):
        store.upload(path, _key(digest, file.name))
        if path.stat().st_size != file.size or sha256_file(path) != file.sha256:
            raise ModelError(f"{path} changed while it was stored", hint="save the model somewhere else and try again")
    manifest = Manifest(schema_version=SCHEMA_VERSION, digest=digest, files=files, meta=meta or {})
    store.put_if_absent(_key(digest, MANIFEST), canonical(manifest.model_dump()))
    return digest


def load_checkpoint(store: Store, digest: str, cache: Path) -> Path:
    """The folder `cache/<digest>` with every file present and verified; files already good are not fetched again.

    Raises NotFoundError (no such checkpoint, or one not finished), CorruptError (bytes are not what was written, or
    the folder holds links or files that the manifest does not list).
    """
    return fill_folder(store, load_manifest(store, digest), cache / digest)


def fill_folder(store: Store, manifest: Manifest, folder: Path) -> Path:
    """Like `load_checkpoint`, for a manifest that is loaded already, into any folder."""
    _refuse_links(folder)
    for file in manifest.files:
        if not _matches(folder / file.name, file):
            _fetch(store, manifest.digest, file, folder / file.name)
    _refuse_strangers(folder, {file.name for file in manifest.files})
    return folder


def forget_folders(cache: Path, keep: Collection[str]) -> None:
    """Removes the folders that `load_checkpoint` made below `cache`, but for those of the digests in `keep`.

    They are copies of what the store holds; whoever asks for one again has it fetched again. Other names stay.
    """
    if cache.is_dir():
        for folder in cache.iterdir():
            if _DIGEST.fullmatch(folder.name) and folder.name not in keep and not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)  # what stays costs room, and no round


def check_checkpoint(store: Store, digest: str) -> int:
    """Reads every blob in the store against the manifest, in pieces and without a folder; returns the bytes read.

    Raises NotFoundError and CorruptError.
    """
    manifest = load_manifest(store, digest)
    for file in manifest.files:
        try:
            size, found = _stored_sha256(store, _key(digest, file.name))
        except NotFoundError as error:
            raise CorruptError(f"checkpoint {digest}: {file.name!r} is missing in {store.url}") from error
        if (size, found) != (file.size, file.sha256):
            raise _changed(store, digest, file, size, found)
    return sum(file.size for file in manifest.files)


def has_checkpoint(store: Store, digest: str) -> bool:
    """Whether a finished checkpoint of this digest is stored."""
    return store.exists(_key(digest, MANIFEST))


def load_manifest(store: Store, digest: str) -> Manifest:
    """The verified manifest of a checkpoint. Raises NotFoundError and CorruptError."""
    key = _key(digest, MANIFEST)
    try:
        data = store.get(key)
    except NotFoundError as error:
        raise NotFoundError(f"checkpoint {digest} is not in {store.url}, or was never finished") from error
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        raise CorruptError(f"checkpoint {digest}: {key!r} in {store.url} is no manifest ({_first(error)})") from error
    if manifest.schema_version != SCHEMA_VERSION:
        message = f"checkpoint {digest}: manifest version {manifest.schema_version}, known is {SCHEMA_VERSION}"
        raise CorruptError(message, hint="a newer release wrote it: update")
    if files_digest(manifest.files) != digest or manifest.digest != digest:
        raise CorruptError(f"checkpoint {digest}: {key!r} in {store.url} lists other files than the digest names")
    _check_names([file.name for file in manifest.files], CorruptError, f"checkpoint {digest}: {key!r} in {store.url}")
    return manifest


def files_digest(files: tuple[File, ...]) -> str:
    """The checkpoint digest: SHA-256 over the canonical JSON of the files, sorted by name."""
    return sha256(canonical([file.model_dump() for file in sorted(files, key=lambda file: file.name)]))


def _check_names(names: list[str], error: type[CorruptError | ModelError], what: str) -> None:
    """A digest vouches for any list of names, also for one made to harm: what a save could not have written is refused.

    Names that differ in case or Unicode form only are one file on some disks.
    """
    seen: dict[str, str] = {}
    for name in names:
        fault = _name_fault(name)
        same = unicodedata.normalize("NFC", name).casefold()
        if fault is None and same in seen:
            fault = f"and {seen[same]!r} are one file on some disks"
        if fault is not None:
            raise error(f"{what}: {name[:200]!r} {fault}", hint="rename or remove it" if error is ModelError else None)
        seen[same] = name
    for name in seen:
        if any(parent.as_posix() in seen for parent in PurePosixPath(name).parents):
            raise error(f"{what}: {seen[name]!r} lies below another file")


def _name_fault(name: str) -> str | None:
    try:
        path = PurePosixPath(check_key(name))
    except StoreError:
        return "is no relative name"
    if path.suffix.lower() not in _KEPT or name.casefold() == MANIFEST or _hidden(path):
        return "is none of the files that a checkpoint holds"
    return None


def _renewed(store: Store, digest: str, files: tuple[File, ...]) -> bool:
    """Whether the checkpoint is stored whole; its manifest is then written again, so that `gc` sees it as new.

    A manifest whose blobs are being swept away at this moment does not count: the caller stores them again.
    """
    key = _key(digest, MANIFEST)
    try:
        store.put(key, store.get(key))
    except NotFoundError:
        return False
    stored = {entry.key: entry.size for entry in store.entries(f"checkpoints/{digest}/")}
    return all(stored.get(_key(digest, file.name)) == file.size for file in files)


def _model_files(folder: Path) -> list[Path]:
    """The files to keep, sorted by name. Raises ModelError."""
    if not folder.is_dir():
        raise ModelError(f"model folder {folder} does not exist or is not a folder")
    visible = [path for path in sorted(folder.rglob("*")) if path.is_file() and not _hidden(path.relative_to(folder))]
    pickles = [path for path in visible if path.suffix.lower() in _PICKLES]
    if pickles:
        hint = "a pickle can run code when it is read: save the model as safetensors, without it"
        raise ModelError(f"{pickles[0]} is, or may be, a pickle file", hint=hint)
    kept = [path for path in visible if path.suffix.lower() in _KEPT and path != folder / MANIFEST]
    weights = [path for path in kept if path.suffix.lower() == ".safetensors"]
    if not weights:
        raise ModelError(f"model folder {folder} holds no .safetensors file", hint="save the model as safetensors")
    for path in kept:
        _check_content(path, is_weights=path in weights)
    return kept


def _hidden(path: PurePath) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _check_content(path: Path, *, is_weights: bool) -> None:
    """A pickle under another name is still a pickle; safetensors begin with a length and a JSON object."""
    with path.open("rb") as file:
        head = file.read(8)
        if head.startswith(_PICKLE_MAGIC) and not is_weights:
            raise ModelError(f"{path} begins like a pickle", hint="remove it or save it as what its name says")
        if not is_weights:
            return
        length = int.from_bytes(head, "little")
        if len(head) < 8 or not 2 <= length <= min(_MOST_HEADER, path.stat().st_size - 8):
            raise ModelError(
                f"{path} is no safetensors file: its header length is {length}", hint="save the model again"
            )
        _check_header(path, file.read(length), path.stat().st_size - 8 - length)


def _check_header(path: Path, header: bytes, data_bytes: int) -> None:
    try:
        tensors = json.loads(header)
        ends = [int(entry["data_offsets"][1]) for name, entry in tensors.items() if name != "__metadata__"]
    except (ValueError, AttributeError, LookupError, TypeError) as error:
        raise ModelError(f"{path} is no safetensors file: its header is not understood ({error})") from error
    if max(ends, default=0) != data_bytes:
        raise ModelError(
            f"{path} is cut or has bytes too many: tensors end at {max(ends, default=0)}, data at {data_bytes}",
            hint="save the model again",
        )


def _describe(folder: Path, path: Path) -> File:
    name = check_key(path.relative_to(folder).as_posix())
    return File(name=name, size=path.stat().st_size, sha256=sha256_file(path))


def _key(digest: str, name: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise StoreError(f"{digest[:80]!r} is not a checkpoint digest (64 hexadecimal digits)")
    return f"checkpoints/{digest}/{check_key(name)}"


def _matches(path: Path, file: File) -> bool:
    return (
        path.is_file()
        and not path.is_symlink()
        and path.stat().st_size == file.size
        and sha256_file(path) == file.sha256
    )


def _fetch(store: Store, digest: str, file: File, path: Path) -> None:
    """Fetches one blob; a wrong one is removed again, so that nobody loads it."""
    try:
        store.download(_key(digest, file.name), path)
    except NotFoundError as error:
        raise CorruptError(f"checkpoint {digest}: {file.name!r} is missing in {store.url}") from error
    if not _matches(path, file):
        size, found = path.stat().st_size, sha256_file(path)
        path.unlink()
        raise _changed(store, digest, file, size, found)


def _changed(store: Store, digest: str, file: File, size: int, found: str) -> CorruptError:
    return CorruptError(
        f"checkpoint {digest}: {file.name!r} in {store.url} is {size} bytes with SHA-256 {found},"
        f" not {file.size} bytes with {file.sha256}"
    )


def _stored_sha256(store: Store, key: str) -> tuple[int, str]:
    """Size and SHA-256 of an object, read in pieces of 8 MiB."""
    state, size = hashlib.sha256(), 0
    while piece := store.get_part(key, size, _PIECE):
        state.update(piece)
        size += len(piece)
    return size, state.hexdigest()


def _refuse_links(folder: Path) -> None:
    """What lies behind a link can be exchanged once it was verified; a file fetched through one lands elsewhere."""
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink():
            raise CorruptError(f"{path} is a link, which a checkpoint's folder must not hold", hint=f"delete {folder}")


def _refuse_strangers(folder: Path, names: set[str]) -> None:
    """A file that the manifest does not list could be read by a model loader all the same."""
    _refuse_links(folder)
    for path in folder.rglob("*"):
        name = PurePosixPath(path.relative_to(folder)).as_posix()
        if not path.is_dir() and name not in names and not path.name.startswith("."):
            raise CorruptError(f"{path} does not belong to checkpoint {folder.name}", hint=f"delete {folder}")


def _first(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, fault['loc'])) or 'file'}: {fault['msg']}"
