"""Rollouts on a GPU: vLLM, as TRL 1.16 drives it, behind `Roles`. Tokens in, tokens out.

TRL starts the engine (colocated) or talks to the server, and sends the weights before a step's games. Ours are:

- Seeds. vLLM gives every request of one seed the same random numbers, so that equal prompts would get equal answers.
  Equal prompts go as one request with n answers, whose seeds vLLM counts up.
- Log-probabilities at temperature 1. TRL's engine tells those after temperature scaling; the run file's check holds the
  temperature at 1, where both are one. They serve TRL's importance-sampling correction; log π_old is computed anew by
  the trained model, as the two differ in their kernels.
- Adapters. Each role's weights are sent as plain ones before it samples; TRL would merge and subtract them in place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, Protocol

import torch

from sparring.config.run import GameConfig, SelfplayConfig
from sparring.errors import SetupError
from sparring.policy.generate import Sampled
from sparring.train.ranks import over_ranks

Mode = Literal["cpu", "vllm_colocate", "vllm_server"]
Completion = tuple[list[int], list[float]]


@dataclass(frozen=True)
class Asked:
    """How completions are sampled; `eos` ends one and stands in it."""

    max_tokens: int
    temperature: float
    seed: int
    eos: frozenset[int]


class Engine(Protocol):
    """A vLLM engine: n completions of each prompt, prompt by prompt, with log-probabilities."""

    def complete(self, prompts: list[list[int]], n: int, asked: Asked) -> list[Completion]:
        """`n` times as many completions as prompts."""
        ...


def rollout_mode(config: SelfplayConfig) -> Mode:
    """What samples on this machine. Raises SetupError when vLLM is asked for and not installed."""
    installed = find_spec("vllm") is not None
    if config.rollouts == "auto":
        return "vllm_colocate" if installed and torch.cuda.is_available() else "cpu"
    if config.rollouts != "cpu" and not installed:
        raise SetupError(
            f"selfplay.rollouts = {config.rollouts} needs vllm, which is not installed",
            hint="install requirements/vllm.txt on a machine with a GPU, or set selfplay.rollouts = cpu",
        )
    return config.rollouts


def vllm_arguments(config: SelfplayConfig, game: GameConfig, mode: Mode) -> dict[str, Any]:
    """Arguments of TRL's GRPOConfig; none for the own loop."""
    if mode == "cpu":
        return {}
    common = {"use_vllm": True, "vllm_mode": mode.removeprefix("vllm_"), "temperature": game.temperature}
    if mode == "vllm_server":
        return {
            **common,
            "vllm_server_base_url": config.vllm.server,
            "vllm_server_timeout": config.vllm.timeout,
            "vllm_group_port": config.vllm.group_port,
        }
    longest = game.max_prompt_tokens + max(game.attack_room, game.answer_room)
    return {**common, "vllm_gpu_memory_utilization": config.vllm.memory, "vllm_max_model_length": longest}


class ColocatedEngine:
    """vLLM in this process, one engine a GPU."""

    def __init__(self, llm: Any) -> None:
        self._llm = llm

    def complete(self, prompts: list[list[int]], n: int, asked: Asked) -> list[Completion]:
        """See `Engine`."""
        from trl.generation.vllm_generation import extract_logprobs
        from vllm import SamplingParams

        how = SamplingParams(
            n=n,
            max_tokens=asked.max_tokens,
            temperature=asked.temperature,
            seed=asked.seed,
            stop_token_ids=sorted(asked.eos),
            logprobs=0,
        )
        outputs = self._llm.generate(
            [{"prompt_token_ids": ids} for ids in prompts], sampling_params=how, use_tqdm=False
        )
        logprobs, _ = extract_logprobs(outputs)
        return _pairs([one.token_ids for output in outputs for one in output.outputs], logprobs)


class ServerEngine:
    """A vLLM server, through TRL's client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def complete(self, prompts: list[list[int]], n: int, asked: Asked) -> list[Completion]:
        """See `Engine`."""
        found = self._client.generate(
            prompts=prompts,
            n=n,
            temperature=asked.temperature,
            max_tokens=asked.max_tokens,
            logprobs=0,
            generation_kwargs={"seed": asked.seed, "stop_token_ids": sorted(asked.eos)},
        )
        return _pairs(found["completion_ids"], found["logprobs"])


def _pairs(ids: Sequence[Sequence[int]], logprobs: Sequence[Sequence[Sequence[float | None]]]) -> list[Completion]:
    """Completions from vLLM's lists; a log-probability that it could not tell is NaN."""
    return [
        (list(tokens), [math.nan if one[0] is None else float(one[0]) for one in values])
        for tokens, values in zip(ids, logprobs, strict=True)
    ]


def complete_all(engine: Engine, prompts: Sequence[Sequence[int]], asked: Asked) -> list[Completion]:
    """One completion for each prompt, in order: a request for all distinct prompts that occur equally often."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place, prompt in enumerate(prompts):
        places.setdefault(tuple(prompt), []).append(place)
    found: dict[int, Completion] = {}
    for n in sorted({len(rows) for rows in places.values()}):
        distinct = [prompt for prompt, rows in places.items() if len(rows) == n]
        parts = engine.complete([list(prompt) for prompt in distinct], n, asked)
        rows = [row for prompt in distinct for row in places[prompt]]
        found.update(zip(rows, parts, strict=True))
    return [found[place] for place in range(len(prompts))]


class VllmRoles:
    """Both roles are sampled by vLLM. `adapted`: the PEFT model whose roles have adapters, None for shared weights."""

    def __init__(self, trainer: Any, eos: frozenset[int], adapted: Any = None) -> None:
        self._trainer, self._eos, self._adapted = trainer, eos, adapted
        generation = trainer.vllm_generation
        self._server = generation.mode == "server"
        if not self._server:
            self._engine: Engine | None = ColocatedEngine(generation.llm)
        else:  # only the main process has a client
            self._engine = ServerEngine(generation.vllm_client) if trainer.accelerator.is_main_process else None

    def sample(
        self,
        role: int,
        prompts: Sequence[Sequence[int]],
        *,
        slots: Sequence[int],
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> Sampled:
        """See `Roles`. With a server every process must call it, as the prompts of all go in one."""
        if self._adapted is not None:
            self._send(role)

        def own_share(part: Sequence[Sequence[int]], skip: int) -> Sampled:
            asked = Asked(max_new_tokens, temperature, (seed + skip) % 2**31, self._eos)
            found = self._through_main(part, asked) if self._server else complete_all(self._own, part, asked)
            return Sampled([ids for ids, _ in found], [values for _, values in found])

        return over_ranks(prompts, own_share)

    @property
    def _own(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("only the main process talks to the vLLM server")
        return self._engine

    def _send(self, role: int) -> None:
        """Gives vLLM the base with `role`'s adapter."""
        from sparring.train.adapters import plain

        generation = self._trainer.vllm_generation
        kept = generation.model
        with plain(self._adapted, role) as model:
            generation.model = model
            try:
                generation.sync_weights()
            finally:
                generation.model = kept

    def _through_main(self, prompts: Sequence[Sequence[int]], asked: Asked) -> list[Completion]:
        from accelerate.utils import broadcast_object_list, gather_object

        accelerator = self._trainer.accelerator
        everyones, sizes = gather_object([list(p) for p in prompts]), gather_object([len(prompts)])
        payload = [complete_all(self._own, everyones, asked) if accelerator.is_main_process else None]
        broadcast_object_list(payload, from_process=0)
        first = sum(sizes[: accelerator.process_index])
        return list(payload[0] or [])[first : first + len(prompts)]
