"""What an adaptive evaluation costs at most, before it begins. The same for every model."""

from __future__ import annotations

from dataclasses import dataclass

from sparring.config.run import EvaluateConfig


@dataclass(frozen=True)
class Budget:
    """Upper limits. `tries`, `samples` and `tokens` are a model's; `written` are the attacker's, of all models.

    - `tries`: attacks with one judged answer each.
    - `samples`: answers sampled, those between the turns included; `tokens`: their tokens.
    - `read`: prompt tokens read for them.
    - `written`: attacks that the attacker writes; `written_tokens`: their tokens.
    """

    tries: int
    samples: int
    tokens: int
    read: int
    written: int
    written_tokens: int

    def __str__(self) -> str:
        asked = f"{self.tries} tries a model: at most {self.samples} answers, {self.tokens} tokens"
        return f"{asked}; {self.written} attacks are written, at most {self.written_tokens} tokens"


def budget(config: EvaluateConfig, models: int, behaviors: int | None = None) -> Budget:
    """The budget of `models` different models; `behaviors` where the suites hold fewer than are asked for."""
    adaptive = config.adaptive
    each = (adaptive.behaviors if behaviors is None else behaviors) * adaptive.tries
    samples = sum(each * (adaptive.turns if method == "multi_turn" else 1) for method in adaptive.methods)
    written = each * (("attacker" in adaptive.methods) + models * ("pair" in adaptive.methods))
    return Budget(
        tries=each * len(adaptive.methods),
        samples=samples,
        tokens=samples * config.answer_tokens,
        read=samples * adaptive.max_prompt_tokens,
        written=written,
        written_tokens=written * adaptive.attack_tokens,
    )
