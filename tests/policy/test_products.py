"""Linear layers through oneDNN: torch's values and gradients, within the rounding of float32."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from sparring.policy import products
from sparring.policy.products import THIN, FastProducts, linear

if not products.AVAILABLE:
    pytest.skip("this machine's torch has no oneDNN product", allow_module_level=True)

Leaves = tuple[Tensor, Tensor, Tensor | None]


def leaves(shape: tuple[int, ...], width: int, bias: bool, seed: int) -> Leaves:
    """Input, weight and bias that ask for gradients."""
    source = torch.Generator().manual_seed(seed)

    def leaf(*size: int) -> Tensor:
        return torch.randn(*size, generator=source).requires_grad_()

    return leaf(*shape), leaf(width, shape[-1]), leaf(width) if bias else None


def gradients(product: Callable[..., Tensor], given: Leaves) -> list[Tensor]:
    """Value and gradients of a product, pulled on unevenly."""
    value = product(*given)
    pull = torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view_as(value)
    asked = [x for x in given if x is not None and x.requires_grad]
    return [value.detach(), *torch.autograd.grad((value * pull).sum(), asked)]


@settings(max_examples=40, deadline=None)
@given(
    shape=st.sampled_from([(1,), (3,), (2, 5), (1, 70), (4, 1, 3)]),
    inner=st.sampled_from([64, 65, 96, 576]),
    width=st.sampled_from([64, 100, 192]),
    bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_values_and_gradients_are_torchs(shape: tuple[int, ...], inner: int, width: int, bias: bool, seed: int) -> None:
    given = leaves((*shape, inner), width, bias, seed)
    exact: Leaves = tuple(x if x is None else x.detach().double().requires_grad_() for x in given)  # type: ignore[assignment]
    for ours, torchs, truth in zip(
        gradients(linear, given), gradients(F.linear, given), gradients(F.linear, exact), strict=True
    ):
        assert ours.shape == torchs.shape and ours.dtype == torchs.dtype
        scale = float(truth.abs().max())
        assert float((ours - truth).abs().max()) <= 1e-5 * scale


def asked_of_onednn(work: Callable[[], object]) -> int:
    """How many products go to oneDNN."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        work()
    return sum(event.name == "mkldnn::_linear_pointwise" for event in seen.events())


def test_modules_and_their_gradients_take_it_while_the_mode_is_entered() -> None:
    layer, x = nn.Linear(80, 96), torch.randn(5, 80, requires_grad=True)

    def fast() -> None:
        with FastProducts():
            value = layer(x)
        value.sum().backward()

    assert asked_of_onednn(fast) == 2  # forward it is torch's product, to the bit
    assert asked_of_onednn(lambda: layer(x).sum().backward()) == 0
    with FastProducts():
        assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))


def test_without_gradients_the_pass_forward_takes_it() -> None:
    layer = nn.Linear(80, 96)

    def fast() -> None:
        with torch.no_grad(), FastProducts():
            layer(torch.randn(5, 80))

    assert asked_of_onednn(fast) == 1


def test_slices_and_transposes_are_multiplied_right() -> None:
    source = torch.Generator().manual_seed(0)
    wide, x = torch.randn(576, 1536, generator=source), torch.randn(300, 1536, generator=source)
    for left, right in ((x[:, :576], wide[:, 576:1152]), (x, wide.t().contiguous().t()), (x[:, ::3], wide[:192, ::3])):
        torch.testing.assert_close(linear(left, right), F.linear(left, right), rtol=1e-4, atol=1e-3)


def test_frozen_weights_get_no_gradient() -> None:
    layer = nn.Linear(64, 64).requires_grad_(False)
    x = torch.randn(3, 64, requires_grad=True)
    with FastProducts():
        layer(x).sum().backward()
    assert layer.weight.grad is None and x.grad is not None
    with FastProducts():
        assert not layer(torch.randn(3, 64)).requires_grad


@pytest.mark.parametrize(
    ("x", "weight"),
    [
        (torch.randn(3, 8), torch.randn(9, 8)),  # thin
        (torch.randn(3, 64).double(), torch.randn(64, 64).double()),
        (torch.randn(3, 64).bfloat16(), torch.randn(64, 64).bfloat16()),
        (torch.randn(0, 64), torch.randn(64, 64)),
        (torch.randn(64), torch.randn(64, 64)),
        (torch.randn(3, 64), torch.randn(64)),
        (torch.randn(3, 64, device="meta"), torch.randn(64, 64, device="meta")),
    ],
)
def test_what_it_cannot_take_goes_to_torch(x: Tensor, weight: Tensor) -> None:
    assert asked_of_onednn(lambda: linear(x, weight)) == 0
    ours, torchs = linear(x, weight), F.linear(x, weight)
    assert ours.shape == torchs.shape and ours.dtype == torchs.dtype and ours.device == torchs.device
    assert ours.is_meta or torch.equal(ours, torchs)


def test_autocast_keeps_its_precision() -> None:
    with torch.autocast("cpu", torch.bfloat16), FastProducts():
        assert F.linear(torch.randn(3, THIN), torch.randn(THIN, THIN)).dtype == torch.bfloat16


def test_the_same_product_gives_the_same_bits() -> None:
    x, weight, _ = leaves((37, 576), 192, False, 0)
    first = gradients(linear, (x, weight, None))
    assert all(all(map(torch.equal, first, gradients(linear, (x, weight, None)))) for _ in range(5))
