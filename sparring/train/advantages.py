"""REINFORCE++ with separate normalisation for each role ([SR], section 3), and GRPO: tensors in, tensors out.

    return_t = clip(r, ±10) − β · Σ_{t' ≥ t} (log π_old − log π_ref)      (k1 KL to the round's starting policy)
    advantage_t = (return_t − mean_role) / max(std_role, 1e-3)

Every game weighs the same in mean and deviation (sequence weighting): a refusal is short, a helpful answer long, and
token weighting would let length decide. Void rows are out of the mean, the deviation and the loss.

GRPO (arXiv 2402.03300) compares rewards within a group alone, (reward − mean_group) / (std_group + 1e-4), and has the
KL in the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor

REWARD_CLIP = 10.0
STD_FLOOR = 1e-3
GRPO_EPSILON = 1e-4
"""What TRL adds to a group's deviation."""


def kl_to_go(old: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Σ_{t' ≥ t} (log π_old − log π_ref) for each token; all (B, T), natural logarithm, zero outside the mask."""
    gap = (old - reference) * mask
    return gap.flip(1).cumsum(1).flip(1) * mask


def role_normalised(returns: Tensor, mask: Tensor, role: Tensor, valid: Tensor) -> Tensor:
    """Advantages (B, T) of returns (B, T), normalised within each role over its valid rows.

    `role` (B,) holds role numbers, `valid` (B,) is False for void rows, whose advantages are zero. The variance is
    taken in two passes and floored: equal rewards would otherwise leave float noise as spread.
    """
    advantages = torch.zeros_like(returns)
    lengths = mask.sum(1).clamp(min=1)
    for number in torch.unique(role).tolist():
        rows = (role == number) & valid
        if not bool(rows.any()):
            continue
        weights = mask[rows] / lengths[rows, None]
        total = weights.sum()
        mean = (returns[rows] * weights).sum() / total
        centred = (returns[rows] - mean) * mask[rows]
        std = ((centred**2 * weights).sum() / total).sqrt()
        advantages[rows] = centred / std.clamp(min=STD_FLOOR)
    return advantages


def less_group_mean(returns: Tensor, mask: Tensor, group: Tensor, valid: Tensor) -> Tensor:
    """Returns (B, T) less the mean return of the valid rows of their group; `group` (B,) holds group numbers.

    The baseline of "REINFORCE++-baseline" (arXiv 2501.03262): rows of one prompt that all end alike carry no gradient
    instead of pushing up whatever was sampled.
    """
    rows = (returns * mask).sum(1) / mask.sum(1).clamp(min=1)
    centred = returns.clone()
    for number in torch.unique(group).tolist():
        members = (group == number) & valid
        if bool(members.any()):
            centred[members] = returns[members] - rows[members].mean()
    return centred * mask


def reinforce_pp(
    reward: Tensor,
    old: Tensor,
    reference: Tensor | None,
    mask: Tensor,
    role: Tensor,
    valid: Tensor,
    beta: float,
    group: Tensor | None = None,
) -> Tensor:
    """Token advantages (B, T) from sequence rewards (B,), see the module's formula.

    With `group` (B,) each group's mean is the baseline; deviations stay those of the role over the whole batch.

    Each row is divided by its length over the mean length of all valid rows, so that the token-mean loss weighs every
    game alike.
    """
    returns = reward.clamp(-REWARD_CLIP, REWARD_CLIP)[:, None] * mask
    if reference is not None and beta > 0:
        returns = returns - beta * kl_to_go(old, reference, mask)
    if group is not None:
        returns = less_group_mean(returns, mask, group, valid)
    advantages = role_normalised(returns, mask, role, valid)
    lengths = mask.sum(1).clamp(min=1).float()
    typical = lengths[valid].mean() if bool(valid.any()) else lengths.mean()
    return advantages * (typical / lengths)[:, None]


def weigh_openings(advantages: Tensor, mask: Tensor, rows: Tensor, decay: float) -> Tensor:
    """Advantages (B, T) of which token t of each of `rows` (B,) counts as decay^t, scaled to a mean weight of 1 a row.

    Whether to help is said in an answer's first words (arXiv 2406.05946): the same reward for all that follows adds
    noise and no signal. A row weighs as much as before. `decay` 1 leaves all as it is.
    """
    falling = decay ** torch.arange(mask.shape[1], dtype=advantages.dtype, device=mask.device) * mask
    weights = falling * mask.sum(1, keepdim=True) / falling.sum(1, keepdim=True).clamp(min=1e-9)
    return torch.where(rows[:, None], advantages * weights, advantages)


def grpo(reward: Tensor, mask: Tensor, group: Tensor, valid: Tensor) -> Tensor:
    """Token advantages (B, T) from sequence rewards (B,), normalised within each group's valid rows as TRL does.

    `group` (B,) holds group numbers; a group has one role (`sparring.train.rollout`). The deviation is the sample's
    (n − 1); a row that is alone in its group has nothing to be compared with and gets 0.
    """
    reward = reward.clamp(-REWARD_CLIP, REWARD_CLIP)
    advantages = torch.zeros_like(reward)
    for number in torch.unique(group).tolist():
        rows = (group == number) & valid
        if int(rows.sum()) > 1:
            centred = reward[rows] - reward[rows].mean()
            std = (centred.square().sum() / (len(centred) - 1)).sqrt()
            advantages[rows] = centred / (std + GRPO_EPSILON)
    return advantages[:, None] * mask
