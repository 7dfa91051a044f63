"""TarFlow: causal in the order of each block, the first patch as it is, and sampling with and without a cache."""

import pytest
import torch

from tests.nn.flows.transforms import build, inputs, jacobian, randomised
from zoo.core.errors import ZooError
from zoo.nn.flows.tarflow import TarFlow, default_patch


def test_the_jacobian_of_a_block_is_triangular_in_its_order():
    block, x = build("causal_block"), inputs("causal_block", 1)[0]  # 4 tokens of 3 values
    found = jacobian(lambda v: block(v)[0], x).view(4, 3, 4, 3).permute(0, 2, 1, 3)  # (T, T, P, P)
    for t in range(4):
        for s in range(4):
            if s > t:
                assert found[t, s].abs().max() == 0
            elif s < t:
                assert found[t, s].abs().max() > 1e-6
            else:
                assert torch.equal(found[t, t], found[t, t].diag().diag()), "within a patch, values are independent"
    assert torch.equal(found[0, 0], torch.eye(3).double()), "the first patch stays"


def test_the_next_block_reads_in_the_other_order():
    flow = randomised(TarFlow((1, 4, 2), 0, n_blocks=2, n_layers=1, d_model=8))
    x = torch.randn(1, 1, 4, 2, dtype=torch.float64)
    first, last = flow.blocks.parts[0](flow.tokens(x))[0], flow.tokens(flow(x)[0])
    assert torch.equal(first[:, 0], flow.tokens(x)[:, 0])
    assert torch.equal(last[:, 0], first[:, 1]), "it begins with what the first one ended with"
    assert not torch.allclose(last[:, 1], first[:, 0])


def test_a_cache_changes_nothing():
    """The same numbers are computed for the last token, whether earlier ones are read again or kept."""
    block, z = build("causal_block"), inputs("causal_block", 4)
    with torch.no_grad():
        cached, again = block.inverse(z), block.inverse(z, cached=False)
        torch.testing.assert_close(cached, again, rtol=0, atol=1e-12)
        stale = block.params
        block.params = lambda tokens, y, cache=None: stale(tokens[:, -1:], y)  # reads the last token alone
        assert not torch.allclose(block.inverse(z), again, atol=1e-3)


def test_images_and_patches():
    flow, x = TarFlow((3, 4, 6), 0, n_blocks=1, patch=2), torch.arange(72.0).view(1, 3, 4, 6)
    tokens = flow.tokens(x)
    assert tokens.shape == (1, 6, 12)
    assert tokens[0, 1].view(3, 2, 2).equal(x[0, :, :2, 2:4])
    assert torch.equal(flow.images(tokens), x)


@pytest.mark.parametrize(
    ("sides", "patch"), [((8, 8), 2), ((28, 28), 4), ((32, 32), 4), ((7, 7), 1), ((10, 14), 2), ((2, 2), 1)]
)
def test_the_default_patch(sides, patch):
    assert default_patch(*sides) == patch


@pytest.mark.parametrize("patch", [3, 8])
def test_a_patch_that_does_not_fit_is_refused(patch):
    with pytest.raises(ZooError, match=f"model.transform.patch={patch}: it must divide images of 8x8 in several"):
        TarFlow((1, 8, 8), 0, patch=patch)
