"""Seeds and suites of a configuration as stored datasets; the same inputs are cleaned and embedded only once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

import sparring
from sparring.config.paths import STARTER
from sparring.config.run import DataConfig
from sparring.data import starter
from sparring.data.card import held_out_counts, seeds_card, suites_card
from sparring.data.hygiene import decontaminate
from sparring.data.load import data_files, file_digest
from sparring.data.seeds import Clean, clean_seeds, collect_seeds, seeds_table
from sparring.data.suites import SUITES_VERSION, Suites, build_suites
from sparring.embedding import DIMENSION, Embedder, Vectors
from sparring.errors import CorruptError, NotFoundError
from sparring.progress import Progress
from sparring.store.base import Store
from sparring.store.datasets import load_meta, save_table

_CHUNK: Final = 256


class Built(BaseModel):
    """Digests of the datasets (`held_out` is empty when nothing is), and the ids of the attacker's demonstrations that
    stand in a suite of the user's."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: int = 1
    seeds: str
    suites: str
    held_out: str = ""
    known_demonstrations: tuple[str, ...] = ()


def build_datasets(
    config: DataConfig,
    store: Store,
    embedder: Callable[[], Embedder],
    progress: Progress,
    power: Callable[[Suites], object],
) -> Built:
    """Builds and stores both datasets, or finds those built of the same files by the same release.

    `power` makes the card's power table. Raises DataError (file, row), StoreError.
    """
    key = f"prepare/{inputs_digest(config)}.json"
    found = _recorded(store, key)
    if found is None:
        found = _build(config, store, embedder(), progress, power)
        store.put(key, found.model_dump_json().encode())
    return found


def inputs_digest(config: DataConfig) -> str:
    """SHA-256 of everything that the datasets depend on: the section, every file's bytes, starter set, release."""
    state = sha256(f"{sparring.__version__} {SUITES_VERSION} {starter.digest()} {config.model_dump_json()}".encode())
    for source in [*config.harmful, *config.benign, *(suite.path for suite in config.suites)]:
        for name, digest in _fingerprints(source):
            state.update(json.dumps([source, name, digest]).encode())
    return state.hexdigest()


def embed(embedder: Embedder, texts: Sequence[str], progress: Progress, stage: str) -> Vectors:
    """Vectors of `texts`, shape (n, 384), with progress."""
    parts: list[Vectors] = [np.zeros((0, DIMENSION), dtype=np.float32)]
    for start in range(0, len(texts), _CHUNK):
        parts.append(embedder.embed(texts[start : start + _CHUNK]))
        progress.update(stage, min(start + _CHUNK, len(texts)), len(texts))
    return np.concatenate(parts)


def _build(
    config: DataConfig, store: Store, embedder: Embedder, progress: Progress, power: Callable[[Suites], object]
) -> Built:
    suites, collected = build_suites(config), collect_seeds(config)
    ids, texts = suites.texts()
    suite_vectors = embed(embedder, texts, progress, "read suites")
    vectors = embed(embedder, [seed.text for seed in collected.seeds], progress, "read seeds")
    clean = clean_seeds(collected, vectors, texts, suite_vectors, config)
    seeds = seeds_table(clean.seeds), seeds_card(collected, clean, ids, suite_vectors, config)
    asked = suites.table(), suites_card(suites, config, power(suites))
    return Built(
        seeds=save_table(store, seeds[0], name="seeds", meta=seeds[1]),
        suites=save_table(store, asked[0], name="suites", meta=asked[1]),
        held_out=_save_held_out(store, clean),
        known_demonstrations=_known_demonstrations(config, embedder, texts, suite_vectors),
    )


def _save_held_out(store: Store, clean: Clean) -> str:
    meta: dict[str, object] = {"kind": "held-out seeds", "held out": held_out_counts(clean)}
    return save_table(store, seeds_table(clean.held_out), name="heldout", meta=meta) if clean.held_out else ""


def _known_demonstrations(
    config: DataConfig, embedder: Embedder, suite: Sequence[str], suite_vectors: Vectors
) -> tuple[str, ...]:
    """Ids of the starter set's attacker demonstrations that stand in a suite of the user's, they or their seeds.

    The starter set's own suites are far from them (tested).
    """
    if not config.suites:
        return ()
    known: set[str] = set()
    for texts in zip(*((d.prompt, d.seed_text) for d in starter.demonstrations()), strict=True):
        drops = decontaminate(
            texts,
            embedder.embed(texts),
            suite,
            suite_vectors,
            ngram=config.decontaminate_ngram,
            cosine=config.decontaminate_cosine,
        )
        known |= {starter.demonstrations()[drop.row].id for drop in drops}
    return tuple(sorted(known))


def _recorded(store: Store, key: str) -> Built | None:
    """What was built of these inputs, if both datasets are still there."""
    if not store.exists(key):
        return None
    try:
        built = Built.model_validate_json(store.get(key))
        for digest in filter(None, (built.seeds, built.suites, built.held_out)):
            load_meta(store, digest)
    except NotFoundError:
        return None
    except ValidationError as error:
        raise CorruptError(
            f"{key} in {store.url} is not what prepare writes", hint="delete it: it is made again"
        ) from error
    return built


def _fingerprints(source: str) -> Iterator[tuple[str, str]]:
    if source == STARTER:
        return
    with data_files(source) as files:
        for name, path in files:
            yield name, file_digest(path)
