"""Linear layers on x86 CPUs through oneDNN, which torch ships but asks only for reduced precision.

torch multiplies float32 matrices with MKL. MKL keeps to AVX2 where the processor is not Intel's, and is slow with few
rows everywhere; oneDNN takes AVX-512 wherever it is (`python -m benchmarks products`). The sums are the same in another
order and twice as far from the exact ones, as it adds up a whole row at a time. A gradient feels that of the pass
forward, and hardly that of its own products (docs/performance.md), so what has a gradient is computed forward
by torch and backward by oneDNN. What oneDNN cannot take (other devices and precisions, autocast, sharded weights,
LoRA's thin matrices) goes to torch as ever.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

THIN = 64
"""A weight with a smaller side is left to torch: starting oneDNN costs more than it gains."""


class FastProducts(TorchFunctionMode):
    """While it is entered, linear layers of any model are computed by `linear`, and their gradients later."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Exchanges `torch.nn.functional.linear`; every other function is called as it is."""
        return (linear if func is F.linear else func)(*args, **(kwargs or {}))


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`, by oneDNN where it can: input (..., K), weight (N, K), bias (N,) → (..., N)."""
    if not _fits(input, weight, bias):
        return F.linear(input, weight, bias)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (input, weight, bias)):
        found: Tensor = _Linear.apply(input, weight, bias)  # type: ignore[no-untyped-call]
        return found
    return _multiply(input, weight, bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(input, weight)
        return F.linear(input, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        input, weight = ctx.saved_tensors
        rows, given = grad.flatten(0, -2).contiguous(), input.flatten(0, -2).contiguous()
        to_input, to_weight, to_bias = ctx.needs_input_grad
        return (
            _multiply(rows, weight.t()).view_as(input) if to_input else None,
            _multiply(rows.t(), given.t()) if to_weight else None,
            rows.sum(0) if to_bias else None,
        )


def _multiply(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if not (weight.is_contiguous() or weight.t().is_contiguous()):  # a slice of a wider one: oneDNN would take a second
        weight = weight.contiguous()
    found: Tensor = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    return found


def _fits(input: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    given = [x for x in (input, weight, bias) if x is not None]
    return (
        AVAILABLE
        and all(type(x) in _PLAIN and x.dtype == torch.float32 and x.device.type == "cpu" for x in given)
        and input.dim() > 1
        and input.numel() > 0
        and weight.dim() == 2
        and min(weight.shape) >= THIN
        and not torch.is_autocast_enabled("cpu")
    )


_PLAIN = (Tensor, nn.Parameter)
AVAILABLE = (
    platform.machine() in ("x86_64", "AMD64")
    and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)
"""Whether this machine's torch has oneDNN's product."""
