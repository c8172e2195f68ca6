"""Rollouts through vLLM without vLLM: arguments, requests, order, seeds, weights. The engine itself needs a GPU.

Where TRL's own classes can run without vLLM they do: its client against a server of this test, its weight sync into a
real model. The engines here answer with the package's own sampler.
"""

from __future__ import annotations

import json
import math
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
import requests
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from peft import get_peft_model
from trl import GRPOConfig
from trl.distributed import DistributedBackend
from trl.generation.vllm_client import VLLMClient
from trl.generation.vllm_generation import VLLMGeneration

from sparring.config.checks import cross_check
from sparring.config.roles import LoraConfig, VllmConfig
from sparring.config.run import GameConfig, RunConfig, SelfplayConfig
from sparring.errors import SetupError
from sparring.policy.generate import generate
from sparring.policy.load import Policy, load_policy
from sparring.train.adapters import fit_adapters, lora, plain
from sparring.train.roles import ATTACKER, DEFENDER, Begun
from sparring.train.vllm import Asked, Completion, ServerEngine, VllmRoles, complete_all, rollout_mode, vllm_arguments

NOT_HERE = find_spec("vllm") is None
LORA = LoraConfig(rank=4)


@pytest.mark.skipif(not NOT_HERE, reason="vLLM is installed: nothing is refused")
@pytest.mark.parametrize("rollouts", ["vllm_colocate", "vllm_server"])
def test_vllm_that_is_not_installed_is_refused_in_one_line(rollouts: Any) -> None:
    with pytest.raises(SetupError, match=f"selfplay.rollouts = {rollouts} needs vllm") as error:
        rollout_mode(SelfplayConfig(rollouts=rollouts))
    assert "\n" not in str(error.value) and "requirements/vllm.txt" in str(error.value.hint)
    assert rollout_mode(SelfplayConfig()) == "cpu"


def test_arguments_are_trl_s_own(tmp_path: Path) -> None:
    game = GameConfig(max_prompt_tokens=100, attack_tokens=20, answer_tokens=30)
    here = vllm_arguments(SelfplayConfig(), game, "vllm_colocate")
    there = vllm_arguments(SelfplayConfig(vllm=VllmConfig(server="http://vllm:8000")), game, "vllm_server")
    for found, mode in ((here, "colocate"), (there, "server")):
        args: Any = GRPOConfig(str(tmp_path), bf16=False, use_cpu=True, report_to="none", **found)
        assert args.use_vllm and args.vllm_mode == mode and args.temperature == 1.0 and args.top_p == 1.0
        assert args.vllm_importance_sampling_correction
    assert here["vllm_max_model_length"] == 130
    assert vllm_arguments(SelfplayConfig(), game, "cpu") == {}


@pytest.mark.parametrize(
    ("selfplay", "game", "words"),
    [
        ({"rollouts": "vllm_server"}, {}, "needs selfplay.vllm.server"),
        ({"rollouts": "vllm_colocate"}, {"temperature": 0.7}, "need game.temperature = 1, not 0.7"),
        ({}, {"temperature": 1.2}, "need game.temperature = 1, not 1.2"),
    ],
)
def test_what_vllm_cannot_do_is_said_before_it_starts(selfplay: Any, game: Any, words: str) -> None:
    problem = cross_check(RunConfig.model_validate({"selfplay": selfplay, "game": game}))
    assert problem is not None and words in problem.text


class Numbered:
    """An engine whose completions name their prompt and their number: vLLM's seeds count up within a request."""

    def __init__(self) -> None:
        self.requests: list[tuple[int, int]] = []

    def complete(self, prompts: list[list[int]], n: int, asked: Asked) -> list[Completion]:
        self.requests.append((len(prompts), n))
        return [([*prompt, asked.seed + i], [float(i)]) for prompt in prompts for i in range(n)]


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=2), min_size=1, max_size=30))
def test_each_prompt_gets_its_own_answer_and_equal_prompts_different_ones(prompts: list[list[int]]) -> None:
    engine = Numbered()
    found = complete_all(engine, prompts, Asked(4, 1.0, 100, frozenset()))
    assert [ids[:-1] for ids, _ in found] == prompts
    assert len({tuple(ids) for ids, _ in found}) == len(prompts)
    assert sum(count * n for count, n in engine.requests) == len(prompts)


class Completions(BaseHTTPRequestHandler):
    """`POST /v1/completions` as a vLLM server answers it, with token ids and the package's own sampler."""

    policy: ClassVar[Policy]
    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked.append(body)
        prompts = [ids for ids in body["prompt"] for _ in range(body["n"])]
        found = generate(
            self.policy.model, prompts, eos=frozenset(body["stop_token_ids"]), max_new_tokens=body["max_tokens"],
            temperature=body["temperature"], seed=body["seed"],
        )  # fmt: skip
        choices = [
            {"prompt_token_ids": prompt, "token_ids": ids, "logprobs": self._logprobs(ids, values)}
            for prompt, ids, values in zip(prompts, found.ids, found.logprobs, strict=True)
        ]
        data = json.dumps({"choices": choices}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    @staticmethod
    def _logprobs(ids: list[int], values: list[float]) -> dict[str, Any]:
        names = [f"token_id:{token}" for token in ids]
        tops = [{name: value} for name, value in zip(names, values, strict=True)]
        return {"tokens": names, "token_logprobs": values, "top_logprobs": tops}

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def client(policy: Policy) -> Iterator[Any]:
    Completions.policy, Completions.asked = policy, []
    server = HTTPServer(("127.0.0.1", 0), Completions)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    found: Any = VLLMClient.__new__(VLLMClient)  # its __init__ wants vLLM installed
    found.session, found.model = requests.Session(), "tiny"
    found.base_url = f"http://127.0.0.1:{server.server_port}"
    yield found
    found.session.close()
    server.shutdown()
    thread.join()
    server.server_close()


def trainer_with(generation: Any) -> Any:
    return SimpleNamespace(vllm_generation=generation, accelerator=Accelerator(cpu=True))


def test_a_server_is_asked_for_tokens_and_answers_are_on_policy(policy: Policy, client: Any) -> None:
    prompts = policy.chat.encode(["Name a river.", "Name a sea.", "Name a river."], 64)
    roles = VllmRoles(trainer_with(SimpleNamespace(mode="server", vllm_client=client)), policy.chat.eos)
    found = roles.sample(DEFENDER, prompts, slots=[0, 1, 0], max_new_tokens=5, temperature=1.0, seed=2**40 + 3)
    assert [(len(body["prompt"]), body["n"]) for body in Completions.asked] == [(1, 1), (1, 2)]
    body = Completions.asked[0]
    assert body["seed"] == 3 and body["logprobs"] == 0 and set(body["stop_token_ids"]) == policy.chat.eos
    assert body["temperature"] == 1.0 and body["top_p"] == 1.0 and body["repetition_penalty"] == 1.0
    assert found.ids[0] != found.ids[2]  # a group's rows are different answers
    for prompt, ids, values in zip(prompts, found.ids, found.logprobs, strict=True):
        with torch.no_grad():
            logits = policy.model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        expected = logits.gather(1, torch.tensor(ids)[:, None]).squeeze(1)
        torch.testing.assert_close(torch.tensor(values), expected, rtol=1e-4, atol=1e-3)


def test_a_log_probability_that_vllm_cannot_tell_is_nan() -> None:
    class Client:
        def generate(self, **_: Any) -> dict[str, Any]:
            return {"completion_ids": [[1, 2]], "logprobs": [[[None], [-0.5]]]}

    (found,) = ServerEngine(Client()).complete([[7]], 1, Asked(2, 1.0, 0, frozenset()))
    assert found[0] == [1, 2] and math.isnan(found[1][0]) and found[1][1] == -0.5


class Loaded:
    """vLLM's `LLM` as far as TRL's weight sync and the games use it, on a Hugging Face model."""

    def __init__(self, folder: Path, eos: frozenset[int]) -> None:
        self.model, self.eos, self.resets = load_policy(folder).model, eos, 0
        inner = SimpleNamespace(model=self)
        worker = SimpleNamespace(model_runner=inner)
        self.llm_engine = SimpleNamespace(model_executor=SimpleNamespace(driver_worker=worker))

    def load_weights(self, weights: list[tuple[str, torch.Tensor]]) -> None:
        own = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in weights:
                own[name].copy_(value)

    def reset_prefix_cache(self) -> None:
        self.resets += 1

    def generate(self, prompts: list[dict[str, Any]], *, sampling_params: Any, use_tqdm: bool) -> list[Any]:
        rows = [one["prompt_token_ids"] for one in prompts for _ in range(sampling_params.n)]
        found = generate(
            self.model, rows, eos=frozenset(sampling_params.stop_token_ids), max_new_tokens=sampling_params.max_tokens,
            temperature=sampling_params.temperature, seed=sampling_params.seed,
        )  # fmt: skip
        texts = [
            SimpleNamespace(
                token_ids=ids,
                logprobs=[{token: SimpleNamespace(rank=1, logprob=v)} for token, v in zip(ids, values, strict=True)],
            )
            for ids, values in zip(found.ids, found.logprobs, strict=True)
        ]
        n = sampling_params.n
        return [SimpleNamespace(outputs=texts[i * n : (i + 1) * n]) for i in range(len(prompts))]


def test_each_role_s_weights_are_sent_before_it_samples_and_the_base_never_drifts(
    policy: Policy, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if NOT_HERE:
        module: Any = ModuleType("vllm")
        module.SamplingParams = SimpleNamespace
        monkeypatch.setitem(sys.modules, "vllm", module)
    model = get_peft_model(policy.model, lora(LORA, 2))
    fit_adapters(model, Begun(), 3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.05)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    accelerator = Accelerator(cpu=True)
    generation: Any = VLLMGeneration.__new__(VLLMGeneration)  # its __init__ starts an engine
    generation.mode, generation.model, generation.enable_sleep_mode = "colocate", model, False
    generation.accelerator, generation._dist = accelerator, DistributedBackend(accelerator)
    generation.llm = Loaded(folder, policy.chat.eos)
    roles = VllmRoles(trainer_with(generation), policy.chat.eos, adapted=model)
    prompts = policy.chat.encode(["Name a river.", "Name a river."], 64)
    for role in (ATTACKER, DEFENDER, ATTACKER):
        found = roles.sample(role, prompts, slots=[0, 0], max_new_tokens=6, temperature=1.0, seed=5)
        with plain(model, role) as merged:
            sent = dict(generation.llm.model.named_parameters())
            assert all(torch.equal(sent[name], p) for name, p in merged.named_parameters())
            expected = generate(merged, prompts, eos=policy.chat.eos, max_new_tokens=6, temperature=1.0, seed=5)
        assert found.ids == expected.ids
    assert generation.llm.resets == 3 and generation.model is model
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
