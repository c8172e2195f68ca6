"""Is judging bound by the endpoint? `python -m benchmarks judge-endpoint [--quick]`.

A real HTTP server in a process of its own answers every completion after a fixed time, as many at once as are asked.
With c requests under way the ideal is c / latency calls a second: what the endpoint could serve. On a busy machine
nobody reaches it, for the server's own timers are late; so a bare client stands beside, that many loops that post one
fixed request and read the reply to its end. The benchmark judges distinct cases through `EndpointJudge` (WildGuard's
format, parser, cache and accounting included), alternating with the bare client, and prints the median ratio to both
with its spread, and the judge's processor time a call: its reciprocal is what one free core carries. Writes
`results/judge_endpoint.json` unless `--quick`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from sparring.config.judges import EndpointConfig
from sparring.judge import JudgeCase
from sparring.judge.endpoint import EndpointJudge

RESULTS: Final = Path(__file__).parent / "results" / "judge_endpoint.json"
_SETTINGS: Final = ((8, 0.2), (32, 0.2), (32, 0.5), (128, 0.5))
"""Requests at once (32 is the default), and seconds that the server takes for each: a guard of 7 to 8 billion
parameters on one GPU takes some tenths of a second under load."""
_ROUNDS: Final = 16
"""Requests a run, in units of those under way at once."""


def main(arguments: Sequence[str]) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks judge-endpoint")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one run at two settings")
    given = parser.parse_args(arguments)
    settings, runs = (_SETTINGS[:2], 1) if given.quick else (_SETTINGS, given.runs)
    with contextlib.ExitStack() as stack:
        urls = {latency: stack.enter_context(serving(latency)) for latency in {each for _, each in settings}}
        rows = [_setting(urls[latency], at_once, latency, runs) for at_once, latency in settings]
    result = {"bench": "judge-endpoint", "peer": "a bare client; the ideal c / latency", "n": runs, "rows": rows}
    result["load"] = [round(load, 1) for load in os.getloadavg()]  # the machine's other work
    if not given.quick:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 0


def _setting(url: str, at_once: int, latency: float, runs: int) -> dict[str, Any]:
    ideal, found = at_once / latency, []
    for number in range(runs):
        calls, cpu = _judged(url, at_once, str(number))
        found.append((calls, cpu, _bare(url, at_once)))
    row = {
        "at_once": at_once,
        "latency_s": latency,
        "calls_s": {
            "ideal": ideal,
            "bare": round(statistics.median(bare for _, _, bare in found), 1),
            "judge": round(statistics.median(calls for calls, _, _ in found), 1),
        },
        "to_bare": _spread([calls / bare for calls, _, bare in found]),
        "to_ideal": _spread([calls / ideal for calls, _, _ in found]),
        "judge_cpu_ms_a_call": round(statistics.median(cpu for _, cpu, _ in found), 2),
    }
    print(f"{at_once:4} at once, {latency:.1f} s each: " + ", ".join(f"{k} {v}" for k, v in list(row.items())[2:]))
    return row


def _spread(ratios: list[float]) -> list[float]:
    """Median, least, most."""
    return [round(value, 3) for value in (statistics.median(ratios), min(ratios), max(ratios))]


def _judged(url: str, at_once: int, name: str) -> tuple[float, float]:
    """Calls a second of the judge, and its processor time a call in milliseconds."""
    config = EndpointConfig(format="wildguard", base_url=url, model="guard", concurrency=at_once)
    judge = EndpointJudge("guard", config)
    count = at_once * _ROUNDS
    cases = [JudgeCase(f"request {number} of run {name}", "an answer of some words " * 8) for number in range(count)]
    started, cpu = time.perf_counter(), time.process_time()
    verdicts = judge.judge(cases)
    seconds, spent = time.perf_counter() - started, time.process_time() - cpu
    assert all(verdict.ok and verdict.harmful for verdict in verdicts) and judge.usage.requests == count
    return count / seconds, 1000 * spent / count


def _bare(url: str, at_once: int) -> float:
    """Calls a second of loops that only post and read."""
    port, body = urlsplit(url).port, b"x" * 1500
    request = b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    async def loop() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(_ROUNDS):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]))
        writer.close()

    async def run() -> None:
        await asyncio.gather(*(loop() for _ in range(at_once)))

    started = time.perf_counter()
    asyncio.run(run())
    return at_once * _ROUNDS / (time.perf_counter() - started)


@contextlib.contextmanager
def serving(latency: float) -> Iterator[str]:
    """The address of a server that takes `latency` seconds for each request."""
    command = [sys.executable, "-m", "benchmarks._slow_server", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=RESULTS.parents[2]) as server:
        try:
            assert server.stdout is not None
            yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        finally:
            server.terminate()


if __name__ == "__main__":
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    sys.exit(main(sys.argv[1:]))
