"""Gradient checkpointing: equal gradients to the last bit, and fewer bytes kept for the backward pass."""

from typing import Any

import pytest
import torch

import zoo
from zoo.core.spaces import Tokens
from zoo.data.batch import Batch

SPEC = zoo.DataSpec(Tokens(32, 20), name="letters")
TEXT = Batch(*torch.randint(20, (2, 4, 32), generator=torch.Generator().manual_seed(0)))


def model(**settings: Any) -> zoo.Model:
    torch.manual_seed(0)
    shape = {"d_model": 32, "n_layers": 4, "n_heads": 2, **settings}
    made = zoo.create_model("gpt", data=SPEC, backbone=shape).train()
    for p in made.net.parameters():  # branches begin at zero, where dropout would not show
        torch.nn.init.normal_(p, std=0.2)
    return made


def trained(made: zoo.Model) -> tuple[torch.Tensor, list[torch.Tensor], int]:
    """Loss, gradients, and the bytes that autograd keeps between the passes."""
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in made.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = made.loss(TEXT)["loss"]
    kept_by_forward = sum(kept.values())
    loss.backward()
    return loss.detach(), [p.grad for p in made.parameters() if p.grad is not None], kept_by_forward


@pytest.mark.parametrize(
    "settings", [{"dropout": 0.3}, {"dropout": 0.3, "window": 4, "global_every": 2}, {"n_experts": 3, "dropout": 0.1}]
)
def test_gradients_are_equal_to_the_last_bit(settings: dict[str, Any]) -> None:
    loss, gradients, _ = trained(model(**settings))
    again, same, _ = trained(model(**settings, gradient_checkpointing=True))
    assert torch.equal(loss, again)
    assert len(gradients) == len(same) > 0
    for one, two in zip(gradients, same, strict=True):
        assert torch.equal(one, two)


def test_other_random_numbers_would_show() -> None:
    """Negative control: without the random state of the first pass, dropout falls elsewhere in the second."""
    made = model(dropout=0.3, gradient_checkpointing=True)
    _, gradients, _ = trained(made)
    made.zero_grad()
    torch.manual_seed(1)
    loss = made.loss(TEXT)["loss"]
    from torch.utils import checkpoint

    original = checkpoint.set_device_states, torch.set_rng_state
    torch.set_rng_state = lambda state: None
    try:
        loss.backward()
    finally:
        checkpoint.set_device_states, torch.set_rng_state = original
    assert not all(torch.equal(p.grad, g) for p, g in zip(made.parameters(), gradients, strict=True))


def test_it_keeps_the_inputs_of_blocks_alone() -> None:
    _, _, usual = trained(model(dropout=0.1))
    _, _, less = trained(model(dropout=0.1, gradient_checkpointing=True))
    _, _, deeper = trained(model(dropout=0.1, gradient_checkpointing=True, n_layers=6))
    inputs = 4 * 32 * 32 * 4  # bytes of (B, T, d)
    assert deeper - less == 2 * inputs
    assert less < usual / 4, (less, usual)


@torch.no_grad()
def test_it_does_not_change_generation() -> None:
    texts = [model(gradient_checkpointing=on).eval().net(TEXT.x) for on in (False, True)]
    assert torch.equal(*texts)
