"""The drifting field, against loops over all triples; its fixed point, symmetry and gradient."""

import math

import torch

from zoo.nn.losses.drifting import class_means, drifting_field, drifting_loss

TEMPERATURES = (0.1, 0.5)


def points(seed: int, *sizes: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 3, dtype=torch.float64, generator=generator) for n in sizes]


def everywhere(x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(x), sum(map(len, others)), dtype=torch.bool)


def brute_force(x: torch.Tensor, p: torch.Tensor, q: torch.Tensor, allowed: torch.Tensor, temperature: float):
    """The definition, one pair of an attracting and a repelling point after another."""
    others = [*p, *q]
    kernel = [
        [math.exp(-math.dist(a, b) / temperature) * bool(allowed[i, j]) for j, b in enumerate(others)]
        for i, a in enumerate(x)
    ]

    def affinity(i: int, j: int) -> float:
        column = sum(row[j] for row in kernel)
        return math.sqrt(kernel[i][j] / sum(kernel[i]) * kernel[i][j] / column) if kernel[i][j] else 0.0

    field = torch.zeros_like(x)
    for i in range(len(x)):
        for j, attracting in enumerate(p):
            for k, repelling in enumerate(q):
                field[i] += affinity(i, j) * affinity(i, len(p) + k) * (attracting - repelling)
    return field


def test_the_field_is_its_definition() -> None:
    x, p, q = points(0, 4, 5, 3)
    allowed = torch.rand(4, 8, generator=torch.Generator().manual_seed(0)) > 0.3
    for temperature in TEMPERATURES:
        found = drifting_field(x, p, q, allowed, temperature)
        torch.testing.assert_close(found, brute_force(x, p, q, allowed, temperature))
        attraction = brute_force(x, p, q * 0, allowed, temperature)
        assert not torch.allclose(found, attraction, atol=1e-3), "the control: without repulsion"


def test_the_field_is_zero_where_both_sets_are_equal_and_changes_its_sign_with_them() -> None:
    x, p, q = points(1, 6, 5, 5)
    for temperature in TEMPERATURES:
        field = drifting_field(x, p, q, everywhere(x, p, q), temperature)
        assert field.abs().max() > 1e-4
        swapped = drifting_field(x, q, p, everywhere(x, p, q), temperature)
        torch.testing.assert_close(swapped, -field)
        equal = drifting_field(x, p, p.flip(0), everywhere(x, p, p), temperature)
        torch.testing.assert_close(equal, torch.zeros_like(x), rtol=0, atol=1e-14)
        moved = drifting_field(x + 7, p + 7, q + 7, everywhere(x, p, q), temperature)
        torch.testing.assert_close(moved, field)


def test_generated_samples_of_the_right_distribution_do_not_drift_on_average() -> None:
    """The field is a mean over draws; with the data moved, it points there."""
    generator = torch.Generator().manual_seed(2)
    found = []
    for shift in (0.0, 1.0):
        x, p = torch.randn(2, 300, 16, 2, dtype=torch.float64, generator=generator)
        allowed = torch.cat([torch.ones(16, 16), 1 - torch.eye(16)], 1).bool()
        fields = torch.stack([drifting_field(a, b + shift, a, allowed, 0.5).mean(0) for a, b in zip(x, p, strict=True)])
        found.append((fields.mean(0) / fields.std(0) * math.sqrt(300)).abs().min().item())
    assert found[0] < 4.5, "standard errors"
    assert found[1] > 10, "the control"


def test_the_losss_gradient_follows_the_field_within_each_class() -> None:
    generated, data = points(3, 8, 12)
    y, y_data = torch.arange(8) % 2, torch.arange(12) % 2
    generated.requires_grad_()
    drifting_loss(generated, y, data, y_data, 3, (0.3,)).sum().backward()
    for label in (0, 1):
        x, p = generated[y == label].detach(), data[y_data == label]
        distances = torch.cdist(x, torch.cat([p, x]))
        scale = distances.sum() / (len(x) * (len(p) + len(x) - 1))
        allowed = torch.cat([torch.ones(len(x), len(p)), 1 - torch.eye(len(x))], 1).bool()
        field = drifting_field(x / scale, p / scale, x / scale, allowed, 0.3)
        expected = -2 / 3 * field / field.square().mean().sqrt() * math.sqrt(3) / scale
        torch.testing.assert_close(generated.grad[y == label], expected)
    mixed = generated.detach().clone().requires_grad_()
    drifting_loss(mixed, y * 0, data, y_data * 0, 3, (0.3,)).sum().backward()
    assert not torch.allclose(mixed.grad, generated.grad, atol=0.1), "the control: classes pull at each other"


def test_classes_without_data_or_with_one_sample_stay_finite() -> None:
    generated, data = points(4, 3, 4)
    y, y_data = torch.tensor([0, 1, 2]), torch.tensor([0, 0, 1, 3])
    generated.requires_grad_()
    loss = drifting_loss(generated, y, data, y_data, 4, TEMPERATURES)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert generated.grad.isfinite().all()
    assert loss[2] == 0, "nothing pulls"


def test_means_of_classes() -> None:
    means = class_means(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1, 0, 1]), 3)
    assert means.tolist() == [3.5, 2.0, 3.5]
