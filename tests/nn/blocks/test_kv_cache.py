"""The key-value cache costs what its tokens cost, whatever the context."""

import pytest
import torch

from tests.nn.networks.test_transformer import build
from zoo.nn.blocks.kv_cache import BLOCK, KVCache
from zoo.nn.samplers.autoregressive import sample_tokens
from zoo.nn.samplers.beam_search import beam_search
from zoo.nn.samplers.sampling_params import SamplingParams

PIECES = [b"a", b"b", b"c", b"d", b"e", b"f", b""]


@pytest.fixture
def stores(monkeypatch):
    """Shapes of the stores of all caches, at every change."""
    shapes = []
    allocate = KVCache._allocate

    def recorded(self, *args):
        allocate(self, *args)
        shapes.append(tuple(self.store.shape))

    monkeypatch.setattr(KVCache, "_allocate", recorded)
    return shapes


def searched(context):
    return beam_search(build(context=context), [6, 1, 2, 3, 4], PIECES, 6, beams=4, limit=20)


def test_size_does_not_depend_on_the_unused_context(stores):
    small = searched(160).tokens
    used = list(stores)
    stores.clear()
    assert searched(32_768).tokens == small
    assert stores == used
    assert max(shape[4] for shape in stores) <= 5 + 20 + BLOCK


def test_a_whole_context_fits_and_not_a_column_more(stores):
    net = build(context=12)
    next(sample_tokens(net, [[1, 2, 3]], SamplingParams(), block_size=9))
    assert {shape[4] for shape in stores} == {12}


def test_growth_keeps_what_is_stored():
    net = build(context=3 * BLOCK)
    x = torch.randint(0, 7, (2, 2 * BLOCK + 9))
    with torch.no_grad():
        cache = net.new_cache(2)
        pieces = [net(part, cache) for part in x.split([3, BLOCK, 1, BLOCK, 5], dim=1)]
        assert torch.allclose(torch.cat(pieces, 1), net(x), atol=5e-5, rtol=0)
