"""The key-value cache of rows of like lengths, while they are decoded.

Columns: what all rows of the bucket begin with, held once; then each row's own tokens, right-aligned, so that every
row's next token falls into the same column. Keys lie transposed, as the product with few queries likes them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sparring.policy.tree import Tokens, common_prefix

ROWS = 16
"""Most rows of a bucket: fewer waste less on unequal lengths, more cost less overhead."""
_COMPACT_BELOW = 0.75
_WORTH_A_GROUP = 8
_WORTH_SHARING = 48


def bucket_rows(prompts: Sequence[Tokens], paths: Mapping[Tokens, tuple[int, ...]]) -> list[list[int]]:
    """Row numbers of each bucket: rows of one role prompt together, then by length, equal prompts side by side."""
    count = Counter(paths[prompt][:2] for prompt in prompts)

    def key(row: int) -> tuple[tuple[int, ...], int, Tokens]:
        group = paths[prompts[row]][:2]
        return group if count[group] >= _WORTH_A_GROUP else (), len(prompts[row]), prompts[row]

    order = sorted(range(len(prompts)), key=key)
    return [order[start : start + ROWS] for start in range(0, len(order), ROWS)]


class Bucket:
    """See the module. `columns` are, for each row, the columns of the prefilled tokens that lead to its last one."""

    def __init__(self, columns: Sequence[Tokens], steps: int, device: torch.device) -> None:
        self.rows, self._steps, self._device = len(columns), steps, device
        self._live: Tensor | None = None  # cache rows that still go on; None: all
        shared = common_prefix(columns)
        shared = shared if shared >= _WORTH_SHARING else 0
        own = [row[shared:] for row in columns]
        self._filled = max(map(len, own))
        self._shared = torch.tensor(columns[0][:shared], dtype=torch.long, device=device)
        places = [(r, self._filled - len(row) + i, c) for r, row in enumerate(own) for i, c in enumerate(row)]
        self._places = torch.tensor(places, dtype=torch.long, device=device).reshape(-1, 3).unbind(1)
        self._lengths = torch.tensor([len(row) for row in own], device=device)
        self._padding = min(map(len, own)) < self._filled
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._first_keys: list[Tensor] = []
        self._first_values: list[Tensor] = []
        self._masks: dict[int | None, Tensor | None] = {}

    def __len__(self) -> int:
        return self.rows if self._live is None else len(self._live)

    def fill(self, k: Tensor, v: Tensor) -> None:
        """Takes the next layer's keys and values (W, kv heads, D) of all prefilled columns."""
        row, place, source = self._places
        shape, size = (self.rows, *k.shape[1:]), self._filled + self._steps
        keys, values = k.new_zeros(*shape, size), v.new_zeros(*shape[:2], size, shape[2])
        keys[row, :, :, place], values[row, :, place] = k[source], v[source]
        self._keys.append(keys)
        self._values.append(values)
        self._first_keys.append(k[self._shared].permute(1, 2, 0).contiguous())
        self._first_values.append(v[self._shared].transpose(0, 1).contiguous())

    def advance(self) -> None:
        """Opens the column of the next token."""
        self._filled += 1
        self._masks = {}

    def drop(self, keep: Tensor) -> None:
        """Goes on only with the rows where `keep` (N,) bool is True; frees what the others held when it pays."""
        if bool(keep.all()):
            return
        live = torch.arange(self.rows, device=self._device) if self._live is None else self._live
        self._live = live[keep]
        if len(self._live) < _COMPACT_BELOW * self.rows and len(self._live):
            self._compact(self._live)

    def _compact(self, live: Tensor) -> None:
        used = self._filled
        for number, (keys, values) in enumerate(zip(self._keys, self._values, strict=True)):
            fewer = keys.new_zeros(len(live), *keys.shape[1:]), values.new_zeros(len(live), *values.shape[1:])
            fewer[0][..., :used] = keys[live, ..., :used]
            fewer[1][:, :, :used] = values[live, :, :used]
            self._keys[number], self._values[number] = fewer
        self.rows, self._lengths, self._live = len(live), self._lengths[live], None

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None, softcap: float | None
    ) -> Tensor:
        """Attention of one new token a live row: q (N, heads, D), k and v (N, kv heads, D) → (N, heads, D)."""
        keys, values, end = self._keys[layer], self._values[layer], self._filled
        rows = slice(None) if self._live is None else self._live
        keys[rows, :, :, end - 1], values[rows, :, end - 1] = k, v
        if self._live is not None:
            q = q.new_zeros(self.rows, *q.shape[1:]).index_copy_(0, self._live, q)
        out = self._mix(q * scale, keys[..., :end], values[:, :, :end], layer, self._mask(window), softcap)
        return out if self._live is None else out[self._live]

    def _mix(
        self, q: Tensor, keys: Tensor, values: Tensor, layer: int, mask: Tensor | None, softcap: float | None
    ) -> Tensor:
        rows, heads, size = q.shape
        kv, shared = keys.shape[1], len(self._shared)
        group = heads // kv  # the heads of a group are queries of one key-value head: nothing is expanded
        grouped = q.view(rows * kv, group, size)
        scores = torch.bmm(grouped, keys.flatten(0, 1)).view(rows, kv, group, -1)
        if shared:
            first = q.view(rows, kv, group, size).transpose(0, 1).reshape(kv, rows * group, size)
            early = torch.bmm(first, self._first_keys[layer]).view(kv, rows, group, shared).transpose(0, 1)
            scores = torch.cat((early, scores), dim=-1)
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if mask is not None:
            scores = scores + mask
        shares = torch.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
        late = shares[..., shared:].reshape(rows * kv, group, -1)
        out = torch.bmm(late, values.flatten(0, 1)).view(rows, kv, group, size)
        if shared:
            first = shares[..., :shared].transpose(0, 1).reshape(kv, rows * group, shared)
            out = out + torch.bmm(first, self._first_values[layer]).view(kv, rows, group, size).transpose(0, 1)
        return out.reshape(rows, heads, size)

    def _mask(self, window: int | None) -> Tensor | None:
        """(R, 1, 1, shared + filled): 0 at columns that the new token sees, -inf elsewhere; None: it sees all."""
        if window not in self._masks:
            self._masks[window] = self._new_mask(window)
        return self._masks[window]

    def _new_mask(self, window: int | None) -> Tensor | None:
        shared, columns = len(self._shared), torch.arange(self._filled, device=self._device)
        if not self._padding and (window is None or shared + self._filled <= window):
            return None
        # own columns end at the new token, so its distance to them is the same in every row
        started = self._filled_at_start() - self._lengths
        own = columns >= started[:, None]
        position = shared + self._filled - 1 - started
        first = torch.ones(self.rows, shared, dtype=torch.bool, device=self._device)
        if window is not None:
            own = own & (self._filled - 1 - columns < window)
            first = position[:, None] - torch.arange(shared, device=self._device) < window
        seen = torch.cat((first, own), dim=1)[:, None, None]
        return torch.where(seen, 0.0, float("-inf")).to(self._keys[0].dtype)

    def _filled_at_start(self) -> int:
        return self._keys[0].shape[-1] - self._steps
