"""pass@k against an enumeration of all draws; calibration against counts by hand."""

import itertools
import math

import pytest
import torch

from zoo.metrics.calibration import expected_calibration_error
from zoo.metrics.pass_at_k import pass_at_k


@pytest.mark.parametrize(("drawn", "k"), [(4, 1), (4, 2), (5, 3), (5, 5)])
def test_it_is_the_share_of_subsets_with_a_right_answer(drawn: int, k: int) -> None:
    for c in range(drawn + 1):
        answers = [True] * c + [False] * (drawn - c)
        subsets = list(itertools.combinations(answers, k))
        wanted = sum(map(any, subsets)) / len(subsets)
        assert pass_at_k(torch.tensor([c]), drawn, k).item() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_it_is_unbiased_and_the_plug_in_is_not(p: float) -> None:
    """The mean over all outcomes of 6 draws that are each right with probability p is 1 - (1 - p)^k."""
    drawn, k, mean, plug_in = 6, 3, 0.0, 0.0
    for outcome in itertools.product((0, 1), repeat=drawn):
        c = sum(outcome)
        chance = p**c * (1 - p) ** (drawn - c)
        mean += chance * pass_at_k(torch.tensor([c]), drawn, k).item()
        plug_in += chance * (1 - (1 - c / drawn) ** k)
    exact = 1 - (1 - p) ** k
    assert mean == pytest.approx(exact, abs=1e-12)
    assert plug_in < exact - 0.01, "the control: the plug-in estimate is too low"


def test_a_k_beyond_the_draws_is_refused() -> None:
    for k in (0, 5):
        with pytest.raises(ValueError, match="not from 1 to the 4"):
            pass_at_k(torch.tensor([1]), 4, k)


def test_calibration_is_the_weighted_distance_of_the_bins() -> None:
    """Two bins: 0.2 and 0.4 with one of two right, and 0.9 three times with one right."""
    confidence = torch.tensor([0.2, 0.4, 0.9, 0.9, 0.9])
    right = torch.tensor([True, False, True, False, False])
    wanted = (2 * abs(0.5 - 0.3) + 3 * abs(1 / 3 - 0.9)) / 5
    assert expected_calibration_error(confidence, right, 2) == pytest.approx(wanted, abs=1e-7)
    assert expected_calibration_error(confidence, right, 1) == pytest.approx(abs(2 / 5 - 3.3 / 5), abs=1e-7)
    edge = torch.tensor([0.5, 1.0])  # the upper end of a bin belongs to it
    assert expected_calibration_error(edge, torch.tensor([False, True]), 2) == pytest.approx(0.25)


def test_labels_drawn_from_the_probabilities_are_calibrated() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(100_000, 4, generator=generator)
    label = torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(1)
    errors = []
    for temperature in (1.0, 0.5):
        confidence, chosen = (logits / temperature).softmax(-1).max(-1)
        errors.append(expected_calibration_error(confidence, chosen == label))
    assert errors[0] < 0.01
    assert errors[1] > 0.05, "the control: too confident"
    assert math.isfinite(expected_calibration_error(torch.zeros(3), torch.ones(3)))
