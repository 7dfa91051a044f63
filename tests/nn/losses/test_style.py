"""Statistics of style: sums by hand, and exact statistics of normalised maps."""

import pytest
import torch

from zoo.nn.losses.style import adain, gram, gram_distance, mean_and_std, statistics_distance


def maps(seed: int, n: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(2, n, 4, 5, generator=generator, dtype=torch.double) - 0.7


def test_a_gram_matrix_is_a_mean_of_products_over_places() -> None:
    x = maps(0)
    found = gram(x)
    for b in range(2):
        for i in range(3):
            for j in range(3):
                wanted = sum(float(x[b, i, r, c] * x[b, j, r, c]) for r in range(4) for c in range(5)) / 20
                assert float(found[b, i, j]) == pytest.approx(wanted)
    places = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(gram(x.flatten(2)[:, :, places].view_as(x)), found, msg="places do not matter")
    apart = torch.stack([row.flatten(1)[:, torch.randperm(20)].view(3, 4, 5) for row in x[:, :1].expand(2, 3, 4, 5)])
    assert not torch.allclose(gram(torch.cat([x[:, :1], apart[:, 1:]], 1)), found), "negative control"


def test_normalised_maps_have_exactly_the_statistics_of_the_style() -> None:
    content, style = maps(0), 5 * maps(1) ** 3
    found = adain(content, style)
    for one, two in zip(mean_and_std(found), mean_and_std(style), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
    for one, two in zip(mean_and_std(found), mean_and_std(content), strict=True):
        assert not torch.allclose(one, two, rtol=0.1), "negative control"
    for b in range(2):
        for c in range(3):
            pair = torch.stack([content[b, c].flatten(), found[b, c].flatten()])
            assert float(torch.corrcoef(pair)[0, 1]) == pytest.approx(1), "places are those of the content"
    torch.testing.assert_close(adain(content, content), content)
    torch.testing.assert_close(statistics_distance([found], [style]), torch.zeros((), dtype=torch.double))
    assert gram_distance([found], [style]) > 1e-3, "products of different maps are another matter"


def test_constant_maps_take_the_mean_of_the_style_and_have_finite_gradients() -> None:
    content = torch.full((1, 2, 3, 3), 0.5, requires_grad=True)
    found = adain(content, torch.rand(1, 2, 3, 3) + 1)
    assert found.std((2, 3)).max() < 1e-6
    found.square().sum().backward()
    assert content.grad.isfinite().all()


def test_distances_by_hand() -> None:
    one, two = [maps(0), maps(1, 2)], [maps(2), maps(3, 2)]
    grams = sum(((gram(a) - gram(b)) ** 2).mean() for a, b in zip(one, two, strict=True))
    torch.testing.assert_close(gram_distance(one, two), grams)
    wanted = 0.0
    for a, b in zip(one, two, strict=True):
        wanted += ((a.mean((2, 3)) - b.mean((2, 3))) ** 2).mean()
        deviations = [part.var((2, 3), unbiased=False).sqrt() for part in (a, b)]
        wanted += ((deviations[0] - deviations[1]) ** 2).mean()
    torch.testing.assert_close(statistics_distance(one, two), wanted)
