"""Multi-scale residual quantisation: the sum of its parts, a loop over places, and residual quantisation as a case."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.errors import ConfigError
from zoo.core.registry import build
from zoo.core.spaces import Codes
from zoo.nn.blocks.grid_resize import GridResize
from zoo.nn.quantizers.multi_scale import MultiScaleQuantizer, sizes_of_scales


def made(grid: tuple[int, int] = (4, 6), seed: int = 0, **settings) -> MultiScaleQuantizer:
    """With random convolutions, and in double precision."""
    torch.manual_seed(seed)
    quantizer = build("quantizer", {"name": "multi_scale", "dim": 3, "n_codes": 7, **settings})
    quantizer.set_grid(grid)
    for layer in quantizer.smooth:
        torch.nn.init.normal_(layer.weight, std=0.1)
    return quantizer.double().eval()


def maps(n: int, grid: tuple[int, int] = (4, 6), seed: int = 1) -> Tensor:
    return torch.randn(n, 3, *grid, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (3, 5), (4, 6)])
def test_matrices_resize_like_torch(size: tuple[int, int]) -> None:
    x, small = maps(2), maps(2, size)
    down, up = GridResize((4, 6), size, "area").double(), GridResize(size, (4, 6), "bicubic").double()
    torch.testing.assert_close(down(x), F.interpolate(x, size, mode="area"), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(up(small), F.interpolate(small, (4, 6), mode="bicubic"), rtol=1e-5, atol=1e-6)


def test_the_parts_of_all_scales_add_up_to_the_quantised_vectors() -> None:
    """A part left out, and codes of other samples, are the negative controls."""
    quantizer, z = made(), maps(5)
    out = quantizer(z)
    assert quantizer.grids == [(1, 1), (1, 2), (2, 3), (4, 6)]
    assert out.codes.shape == (5, *quantizer.index_shape((4, 6))) == (5, 1 + 2 + 6 + 24)
    parts = quantizer.parts(out.codes)
    torch.testing.assert_close(sum(parts), out.z)
    torch.testing.assert_close(quantizer.lookup(out.codes), out.z)
    for left_out in range(4):
        assert not torch.allclose(sum(parts) - parts[left_out], out.z, atol=1e-3)
    assert not torch.allclose(quantizer.lookup(out.codes.roll(1, 0)), out.z, atol=1e-3)


def test_each_scale_quantises_what_the_coarser_ones_leave_open() -> None:
    """By a loop over scales and places with torch's own interpolation; without the residual it finds other codes."""
    quantizer, z = made(), maps(4)
    codes = quantizer(z).codes.split([1, 2, 6, 24], 1)
    parts = [part.detach() for part in quantizer.parts(torch.cat(codes, 1))]
    differs = False
    for scale, size in enumerate(quantizer.grids):
        book = quantizer.codebooks[scale].codebook
        rest = F.interpolate(z - sum(parts[:scale], torch.zeros_like(z)), size, mode="area")
        naive = F.interpolate(z, size, mode="area")
        for b in range(4):
            for place in range(size[0] * size[1]):
                row, column = divmod(place, size[1])
                near = [float((rest[b, :, row, column] - code).square().sum()) for code in book]
                assert near[int(codes[scale][b, place])] == pytest.approx(min(near))
                differs |= int(codes[scale][b, place]) != int(
                    (naive[b, :, row, column] - book).square().sum(1).argmin()
                )
    assert differs


def test_equal_grids_without_convolutions_are_residual_quantisation() -> None:
    many, plain = (
        made(scales=[1, 1, 1]),
        build("quantizer", {"name": "rvq", "dim": 3, "n_codes": 7, "depth": 3}).double(),
    )
    z = maps(6)
    for layer, book, other in zip(many.smooth, many.codebooks, plain.layers, strict=True):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        other.codebook.copy_(book.codebook)
    one, two = many(z), plain.eval()(z)
    assert torch.equal(one.codes.unflatten(1, (3, 4, 6)).movedim(1, -1), two.codes)
    torch.testing.assert_close(one.z, two.z)
    torch.nn.init.constant_(many.smooth[0].bias, 0.5)
    assert not torch.equal(many(z).codes, one.codes)


def test_the_gradient_passes_straight_through_and_the_loss_trains_the_convolutions() -> None:
    quantizer, z = made(), maps(3).requires_grad_()
    weights = maps(3, seed=2)
    (gradient,) = torch.autograd.grad((quantizer(z).z * weights).sum(), z)
    torch.testing.assert_close(gradient, weights)
    out = quantizer(z)
    sums = torch.stack(quantizer.parts(out.codes)).cumsum(0)
    squares = (z - sums).square().sum() / 3
    torch.testing.assert_close(out.loss, 1.25 * squares)
    out.loss.backward()
    torch.testing.assert_close(z.grad, 0.25 * 2 * (4 * z - sums.sum(0)).detach() / 3)
    assert all(layer.weight.grad.abs().max() > 0 for layer in quantizer.smooth)


def test_training_lowers_the_distance_at_each_scale() -> None:
    """On maps of four kinds with small noise; random codebooks are the negative control."""
    kinds = 3 * maps(4, seed=5)

    def batch(seed: int) -> Tensor:
        return kinds[torch.arange(32) % 4] + 0.1 * maps(32, seed=seed)

    def left(quantizer: MultiScaleQuantizer) -> list[float]:
        """Share of the energy that the sums of one, two ... scales leave open."""
        z = batch(9)
        sums = torch.stack(quantizer.parts(quantizer(z).codes)).cumsum(0)
        return [float((z - part).square().mean().detach() / z.square().mean()) for part in sums]

    quantizer = made(seed=3, decay=0.9, n_codes=64)
    before = left(quantizer)
    quantizer.train()
    for step in range(40):
        quantizer(batch(10 + step))
    after = left(quantizer.eval())
    assert after == sorted(after, reverse=True)
    assert after[-1] < 0.3 < after[0]
    assert after[-1] < before[-1]


def test_scales_of_grids() -> None:
    assert sizes_of_scales(4, 4, ()) == [(1, 1), (2, 2), (4, 4)]
    assert sizes_of_scales(5, 7, ()) == [(1, 1), (2, 2), (3, 4), (5, 7)]
    assert sizes_of_scales(16, 8, (1, 2, 3, 4)) == [(4, 2), (8, 4), (12, 6), (16, 8)]
    assert sizes_of_scales(1, 1, ()) == [(1, 1)]
    space = made().index_space((4, 6))
    assert space == Codes((33,), 7, (1, 1, 2, 4), (1, 2, 3, 6))
    assert space.scales == ((1, 1), (1, 2), (2, 3), (4, 6))
    counted = made().by_codebook(torch.arange(2 * 33).view(2, 33))
    assert [len(row) for row in counted] == [2, 4, 12, 48]
    assert counted[1].tolist() == [1, 2, 34, 35]
    with pytest.raises(ConfigError, match="become smaller"):
        made(scales=[1, 4, 2])
    with pytest.raises(ValueError, match="not the grids"):
        Codes((21,), 7, (1, 2), (1, 2))


def test_sounds_are_refused():
    with pytest.raises(ConfigError, match="multi_scale: needs a grid of two dimensions"):
        made(grid=(6,))
