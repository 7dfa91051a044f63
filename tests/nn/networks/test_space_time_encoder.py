"""The transformer over space and time: against attention to all tokens under masks."""

import pytest
import torch

import zoo
from zoo.core.errors import ZooError
from zoo.core.registry import build
from zoo.core.spaces import Codes, Label
from zoo.nn.blocks.attention import AttentionInputs
from zoo.nn.blocks.position_encoding import rotation
from zoo.nn.networks.space_time_encoder import SpaceTimeEncoder

FRAMES, PLACES = 3, 4


def make(**settings):
    torch.manual_seed(0)
    net = SpaceTimeEncoder(12, 7, 1 + FRAMES * PLACES, d_model=8, n_layers=4, n_heads=2, **settings).double()
    net.set_frames(FRAMES)
    for p in net.double().parameters():
        torch.nn.init.normal_(p, std=0.5)
    return net


def masked(net, tokens, axes):
    """Features by attention to all tokens, of which those of another frame (0) or place (1) are masked, by layer."""
    frame, place = torch.arange(FRAMES * PLACES) // PLACES, torch.arange(FRAMES * PLACES) % PLACES
    same = [where[:, None] == where for where in (frame, place)]
    first, x = net.embedding(tokens[:, :1]), net.embedding(tokens[:, 1:])
    x = x + first + net.place[place] + net.time[frame]
    post = net.config.norm_place == "after"
    x = net.norm(x) if post else x
    for block, axis in zip(net.blocks, axes, strict=True):
        turn = None if net.angles is None else rotation(net.angles[(place, frame)[axis]])
        x = block(x, AttentionInputs(turn, same[axis], False))
    return x if post else net.norm(x)


@pytest.mark.parametrize("norm_place", ["before", "after"])
@pytest.mark.parametrize("position_encoding", ["learned", "learned_rotary"])
def test_features_are_those_of_masked_attention(norm_place, position_encoding):
    net = make(norm_place=norm_place, position_encoding=position_encoding)
    tokens = torch.randint(12, (2, 1 + FRAMES * PLACES))
    found = net.features(tokens)[:, 1:]
    torch.testing.assert_close(found, masked(net, tokens, [0, 1, 0, 1]), atol=1e-10, rtol=0)
    assert (found - masked(net, tokens, [1, 0, 1, 0])).abs().max() > 0.1


def test_two_blocks_see_everything_and_one_does_not():
    net, tokens = make(), torch.randint(12, (1, 1 + FRAMES * PLACES))
    other = tokens.clone()
    other[0, 1] = (tokens[0, 1] + 1) % 12  # frame 0, place 0
    changed = (net(tokens) - net(other)).abs().amax(2)[0, 1:].view(FRAMES, PLACES) > 1e-9
    assert changed.all()
    net.blocks = net.blocks[:1]
    changed = (net(tokens) - net(other)).abs().amax(2)[0, 1:].view(FRAMES, PLACES) > 1e-9
    assert changed[0].all()
    assert not changed[1:].any()


def test_other_tokens_than_those_of_frames_are_refused():
    with pytest.raises(ZooError, match="reads the codes of videos"):
        build("model", {"name": "masked_diffusion", "backbone": "space_time_encoder"}, zoo.DataSpec(Codes((4, 4), 5)))
    with pytest.raises(ZooError, match=r"n_layers=1: attends in space alone"):
        SpaceTimeEncoder(4, 4, 9, n_layers=1)
    with pytest.raises(ZooError, match=r"d_model=6: must divide into n_heads=2 heads of an even width"):
        SpaceTimeEncoder(4, 4, 9, d_model=6, n_heads=2)
    spec = zoo.DataSpec(Codes((3, 2, 2), 5, frames=3), Label(2))
    model = build("model", {"name": "masked_diffusion", "backbone": "space_time_encoder"}, spec)
    assert model.net.time.shape[0] == 3
    assert "attention" not in model.abilities
