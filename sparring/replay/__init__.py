"""The replay pool: attacks of earlier rounds go to the current defender again (reflective experience replay).

The pool keeps attack prompts and what became of them, never trajectories: a replayed attack gets new answers and
new judgements, so that the defender is trained exactly on-policy.
"""
