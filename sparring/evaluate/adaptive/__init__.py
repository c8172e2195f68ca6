"""Adaptive evaluation: held-out harmful behaviours under attack, the same budget for every model.

    behaviours ─► attacks that are the same for all models ─► frozen ─► every model answers ─┐
                  pair: the attacker refines each attack from the model's last answer ───────┴─► frozen ─► judge ─► gate

- `attacks`: what an attack is, and which behaviours are attacked.
- `perturb`, `frames`: best-of-N, prefill and multi-turn attacks: pure functions of (round's seed, behaviour, try).
- `attacker`: attacks that a model writes, at once or refined (PAIR).
- `target`: a model answers attacks.
- `run`: all of it, frozen in the store try by try, so that a killed run draws nothing twice.
- `budget`: what it costs.
"""
