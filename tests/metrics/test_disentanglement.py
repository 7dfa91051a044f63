"""Disentanglement metrics on codes whose values are known."""

import math

import pytest
import torch

from zoo.metrics.disentanglement import disentanglement_completeness_informativeness as dci
from zoo.metrics.disentanglement import (
    mutual_information,
    mutual_information_gap,
    separated_attribute_predictability,
)

SIZES = (3, 4, 5)
FACTORS = torch.cartesian_prod(*[torch.arange(n) for n in SIZES]).repeat(
    40, 1
)  # (2400, 3): independent, all equally often


def noise(n: int) -> torch.Tensor:
    return torch.randn(len(FACTORS), n, generator=torch.Generator().manual_seed(0))


def perfect() -> torch.Tensor:
    """Each code is one factor, in another order and scale; two more codes are constant."""
    return torch.cat([-3.0 * FACTORS[:, [2, 0, 1]] + 1, torch.zeros(len(FACTORS), 2)], 1)


def rotated() -> torch.Tensor:
    """Each pair of codes shares two factors of four and five levels, and the first is left out."""
    a, b = FACTORS[:, 1].float() / math.sqrt(1.25), FACTORS[:, 2].float() / math.sqrt(2)
    return torch.stack([a + b, a - b], 1)


def test_perfect_codes_have_the_largest_values() -> None:
    assert mutual_information_gap(perfect(), FACTORS).tolist() == pytest.approx([1, 1, 1])
    assert separated_attribute_predictability(perfect(), FACTORS).tolist() == pytest.approx([1, 1, 1])
    assert list(dci(perfect(), FACTORS).values()) == pytest.approx([1, 1, 1])


def test_mutual_information_of_a_code_that_merges_levels() -> None:
    """The parity of four levels is one bit of two; a copy of the factor has its entropy."""
    codes = torch.stack([FACTORS[:, 1] % 2, FACTORS[:, 1]], 1).float()
    table, entropies = mutual_information(codes, FACTORS)
    assert entropies.tolist() == pytest.approx([math.log(n) for n in SIZES])
    expected = [[0, math.log(2), 0], [0, math.log(4), 0]]
    torch.testing.assert_close(table, torch.tensor(expected, dtype=torch.float64))
    gap = mutual_information_gap(codes, FACTORS)
    assert gap.tolist() == pytest.approx([0, 0.5, 0])


def test_twin_codes_have_no_gap_but_are_informative() -> None:
    codes = torch.cat([perfect(), perfect()], 1)
    assert mutual_information_gap(codes, FACTORS).abs().max() < 1e-12
    assert separated_attribute_predictability(codes, FACTORS).abs().max() < 1e-12
    found = dci(codes, FACTORS)
    assert found["informativeness"] > 0.98
    assert found["disentanglement"] > 0.98  # each code still belongs to one factor
    assert found["completeness"] < 0.8  # but a factor has two codes: 1 - log 2 / log 10 = 0.70
    assert found["completeness"] == pytest.approx(1 - math.log(2) / math.log(10), abs=0.1)


def test_rotated_codes_are_informative_and_not_disentangled() -> None:
    found = dci(rotated(), FACTORS[:, 1:])
    assert found["informativeness"] > 0.98
    assert found["disentanglement"] < 0.2
    assert float(mutual_information_gap(rotated(), FACTORS[:, 1:]).mean()) < 0.1
    assert float(separated_attribute_predictability(rotated(), FACTORS[:, 1:]).mean()) < 0.02


def test_random_codes_have_the_least_values() -> None:
    codes = noise(6)
    assert mutual_information_gap(codes, FACTORS).max() < 0.01
    assert separated_attribute_predictability(codes, FACTORS).max() < 0.01
    found = dci(codes, FACTORS)
    assert abs(found["informativeness"]) < 0.06
    assert found["disentanglement"] < 0.05
    assert found["completeness"] < 0.05


def test_order_scale_and_sign_of_codes_do_not_matter() -> None:
    codes = perfect() + 0.6 * noise(5)
    moved = codes[:, [4, 2, 0, 1, 3]] * torch.tensor([-2.0, 0.1, 5.0, 1.0, -7.0]) + 3
    for metric in (mutual_information_gap, separated_attribute_predictability):
        torch.testing.assert_close(metric(codes, FACTORS), metric(moved, FACTORS), atol=0.02, rtol=0)
    shuffled = codes[torch.randperm(len(codes), generator=torch.Generator().manual_seed(1))]
    assert mutual_information_gap(codes, FACTORS).min() > 0.2
    assert mutual_information_gap(shuffled, FACTORS).max() < 0.02  # negative control: rows of other factors


def test_one_code_is_compared_with_nothing() -> None:
    codes = FACTORS[:, :1].float()
    assert mutual_information_gap(codes, FACTORS).tolist() == pytest.approx([1, 0, 0], abs=1e-9)
    assert separated_attribute_predictability(codes, FACTORS).tolist() == pytest.approx([1, 0, 0], abs=1e-9)
