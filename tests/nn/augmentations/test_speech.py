"""Random changes of speech: their formulas, and what they must leave as it is."""

from dataclasses import replace
from typing import Any

import torch

from zoo.nn.augmentations.speech import SpeechBands, SpeechChanges, in_equal_time, masked, plain_bands

NOTHING = SpeechChanges(tract=0, ends=0, bend=0, tilt=0, noise=(200.0, 200.0), bands=0, frames=0)


def spectra(n: int = 3, length: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    power = torch.rand(n, length, 129, generator=torch.Generator().manual_seed(0)) ** 4
    return power, torch.full((n,), length)


def test_tempo_has_no_effect() -> None:
    ramp = torch.arange(10.0)[None, :, None].expand(1, 10, 2)
    slow = torch.arange(19.0)[None, :, None].expand(1, 19, 2) / 2  # half as fast
    ends, still = torch.tensor([[0.0, 1.0]]), torch.zeros(1)
    one = in_equal_time(ramp, torch.tensor([10]), 7, ends, still)
    torch.testing.assert_close(one[0, :, 0], torch.linspace(0, 9, 7))
    torch.testing.assert_close(one, in_equal_time(slow, torch.tensor([19]), 7, ends, still))


def test_frames_after_the_length_are_never_read() -> None:
    x = torch.ones(2, 12, 3)
    x[0, 5:] = torch.nan
    ends = torch.tensor([[-0.3, 1.3], [0.1, 0.7]])
    assert torch.isfinite(in_equal_time(x, torch.tensor([5, 12]), 9, ends, torch.tensor([0.2, -0.2]))).all()


def test_a_bend_of_time_never_turns_back() -> None:
    ramp = torch.arange(30.0)[None, :, None]
    for bend in (-0.3, 0.3):
        found = in_equal_time(ramp, torch.tensor([30]), 40, torch.tensor([[0.0, 0.5]]), torch.tensor([bend]))
        assert (found[0, :, 0].diff() >= -1e-4).all()
    turned = in_equal_time(ramp, torch.tensor([30]), 40, torch.tensor([[0.0, 0.5]]), torch.tensor([0.6]))
    assert (turned[0, :, 0].diff() < -1e-4).any()


def test_without_changes_the_changed_images_are_the_plain_ones_without_a_floor() -> None:
    power, lengths = spectra()
    bands = SpeechBands(256, 8000, bands=16, frames=12, changes=NOTHING)
    still = in_equal_time(power, lengths, 12, torch.tensor([[0.0, 1.0]]).expand(3, 2), torch.zeros(3))
    expected = plain_bands(bands.plain_filters @ still.mT, decibels=200)
    changed = bands.changed(power, lengths, torch.Generator().manual_seed(1))
    torch.testing.assert_close(changed, expected, atol=1e-4, rtol=1e-4)


def test_each_change_has_an_effect_of_its_own() -> None:
    power, lengths = spectra()
    still = SpeechBands(256, 8000, bands=16, frames=12, changes=NOTHING)
    own = still.changed(power, lengths, torch.Generator().manual_seed(1))
    settings: dict[str, Any] = {
        "tract": 0.25, "ends": 0.15, "bend": 0.15, "noise": (39.0, 13.0), "bands": 0.5, "frames": 0.5
    }  # fmt: skip
    for name, value in settings.items():
        changes = replace(NOTHING, **{name: value})
        x = SpeechBands(256, 8000, bands=16, frames=12, changes=changes).changed(
            power, lengths, torch.Generator().manual_seed(1)
        )
        assert float((x - own).abs().max()) > 0.1, name


def test_an_equaliser_and_the_loudness_are_removed() -> None:
    power, lengths = spectra()
    loud = SpeechBands(256, 8000, bands=16, frames=12)
    torch.testing.assert_close(loud.plain(power, lengths), loud.plain(50 * power, lengths), atol=1e-4, rtol=1e-4)
    tilted = SpeechBands(256, 8000, bands=16, frames=12, changes=replace(NOTHING, tilt=3.0))
    still = SpeechBands(256, 8000, bands=16, frames=12, changes=NOTHING)
    one, other = (b.changed(power, lengths, torch.Generator().manual_seed(2)) for b in (tilted, still))
    torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)  # without noise, a filter has no effect


def test_masks_are_intervals_of_at_most_the_share() -> None:
    x = masked(torch.ones(500, 20, 5), 1, 0.25, torch.Generator().manual_seed(0))
    hidden = x[:, :, 0] == 0
    assert torch.equal(hidden, (x == 0).any(2))
    assert torch.equal(hidden, (x == 0).all(2))
    assert 4 <= int(hidden.sum(1).max()) <= 6
    edges = hidden.int().diff(dim=1).abs().sum(1)
    assert (edges <= 2).all()
    assert hidden.any(0).all()
