"""State spaces in chunks against the recurrence, one step after another."""

import pytest
import torch

from zoo.nn.blocks.state_space import state_space

B, T, H, P, G, N = 2, 11, 4, 3, 2, 5


def inputs(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    """x, step, rate, b, c, and a state."""
    g = torch.Generator().manual_seed(seed)
    shapes = ((B, T, H, P), (B, T, H), (H,), (B, T, G, N), (B, T, G, N), (B, H, P, N))
    x, step, rate, b, c, state = (torch.randn(shape, generator=g, dtype=dtype) for shape in shapes)
    return x, step.exp(), -rate.exp(), b, c, state


def recurrence(x, step, rate, b, c, state, groups=G):
    """The definition: h = exp(step rate) h + step x b^T, y = c h."""
    b, c = (part.repeat_interleave(H // groups, 2) for part in (b, c))
    out = []
    for t in range(x.shape[1]):
        grow = step[:, t, :, None, None] * x[:, t, :, :, None] * b[:, t, :, None]
        state = (step[:, t] * rate).exp()[..., None, None] * state + grow
        out.append((state * c[:, t, :, None]).sum(-1))
    return torch.stack(out, 1), state


@pytest.mark.parametrize("chunk", [1, 3, 4, 11, 64])
def test_chunks_equal_the_recurrence_with_its_gradients(chunk: int) -> None:
    given = [part.requires_grad_() for part in inputs()]
    found = []
    for y, h in (state_space(*given, chunk=chunk), recurrence(*given)):
        weights = [torch.linspace(-1, 2, part.numel(), dtype=part.dtype).view_as(part) for part in (y, h)]
        found.append((y, h, *torch.autograd.grad((y * weights[0]).sum() + (h * weights[1]).sum(), given)))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-11)


def test_control_heads_that_take_turns_between_groups_differ() -> None:
    """Successive heads share a group: the other order, `repeat`, is a known fault of early implementations."""
    x, step, rate, b, c, state = inputs()
    y, _ = state_space(x, step, rate, b, c, state)
    turned, _ = recurrence(x, step, rate, b.repeat(1, 1, H // G, 1), c.repeat(1, 1, H // G, 1), state, groups=H)
    assert (y - turned).abs().max() > 0.1


def test_two_parts_equal_the_whole() -> None:
    x, step, rate, b, c, state = inputs()
    whole, last = state_space(x, step, rate, b, c, state, chunk=4)
    first, between = state_space(x[:, :6], step[:, :6], rate, b[:, :6], c[:, :6], state, chunk=4)
    second, end = state_space(x[:, 6:], step[:, 6:], rate, b[:, 6:], c[:, 6:], between, chunk=4)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(end, last)


def test_steps_of_size_zero_change_nothing() -> None:
    x, step, rate, b, c, state = inputs()
    kept = state_space(x, torch.zeros_like(step), rate, b, c, state)[1]
    torch.testing.assert_close(kept, state)


def test_fast_decay_gives_finite_numbers_and_gradients() -> None:
    """Log decays of later steps, which are masked, would overflow."""
    x, step, rate, b, c, state = (part.float() for part in inputs())
    step = (step * 1000).requires_grad_()
    y, _ = state_space(x, step, rate, b, c, state)
    (grad,) = torch.autograd.grad(y.sum(), step)
    assert y.isfinite().all()
    assert grad.isfinite().all()


def test_half_precision_is_summed_in_float32() -> None:
    x, step, rate, b, c, _ = (part.bfloat16() for part in inputs())
    y, h = state_space(x, step, rate, b, c)
    exact, _ = state_space(*(part.double() for part in (x, step, rate, b, c)))
    assert y.dtype == h.dtype == torch.float32
    torch.testing.assert_close(y.double(), exact, rtol=1e-4, atol=1e-4)
