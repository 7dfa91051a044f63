"""Errors of predicted frames, in closed form on moving shapes, and the suite with models that are right and wrong."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import zoo
from zoo.data.loader import make_generator
from zoo.data.video.moving_digits import draw_motions, draw_videos, places
from zoo.evaluation.context import EvaluationConfig, EvaluationContext
from zoo.evaluation.suites.frame_prediction import FramePredictionSuite
from zoo.metrics.frame_prediction import extrapolate_motion, frame_errors, repeat_last, shifted


def squares(motions, frames=6, size=24, side=3):
    """White squares of a side on black, along motions (top, left, down, right) without edges: (N, F, 1, size, size)."""
    x = torch.zeros(len(motions), frames, 1, size, size)
    for row, (top, left, down, right) in zip(x, motions, strict=True):
        for t, frame in enumerate(row):
            frame[0, top + t * down : top + t * down + side, left + t * right : left + t * right + side] = 1
    return x


def overlap(side, *moved):
    """Pixels that a square of a side shares with itself, moved."""
    return max(side - abs(moved[0]), 0) * max(side - abs(moved[1]), 0)


MOTIONS = [(8, 8, 1, 0), (8, 8, 1, 1), (8, 8, -1, 2), (4, 4, 2, 2), (8, 8, 0, 0)]


def test_the_floor_of_a_repeated_frame_in_closed_form():
    x = squares(MOTIONS)
    found = frame_errors(repeat_last(x[:, :2], 4), x[:, 2:])
    for errors, (_, _, down, right) in zip(found, MOTIONS, strict=True):
        expected = [2 * (9 - overlap(3, t * down, t * right)) for t in range(1, 5)]  # pixels in one square only
        assert errors.tolist() == expected
    assert found[0].tolist() == [6, 12, 18, 18], "by hand: 3 pixels leave and 3 come, until nothing is shared"
    assert found[-1].sum() == 0, "a video that stands still"


def test_linear_extrapolation_is_exact_without_edges_and_wrong_with_acceleration():
    x = squares(MOTIONS)
    assert torch.equal(extrapolate_motion(x[:, :2], 4), x[:, 2:])
    slower = x[:, [0, 2, 3, 4]]  # two steps, and then one
    found = frame_errors(extrapolate_motion(slower[:, :2], 2), slower[:, 2:])
    assert found[0].tolist() == [6, 12], "one and two pixels too far"
    assert found[-1].sum() == 0
    backwards = frame_errors(extrapolate_motion(x[:, :2].flip(1), 4), x[:, 2:])
    assert (backwards[:-1].mean(1) > 0).all(), "negative control: the order of the given frames matters"
    with pytest.raises(ValueError, match="at least 2"):
        extrapolate_motion(x[:, :1], 1)


def test_shifted_frames_are_those_of_a_loop():
    frame = torch.rand(2, 3, 4, 5)
    offsets = torch.tensor([[[1, -2], [0, 0], [-9, 1]], [[-1, 1], [2, 3], [0, 9]]])
    found = shifted(frame, offsets)
    expected = torch.zeros_like(found)
    for i in range(2):
        for j in range(3):
            for row in range(4):
                for column in range(5):
                    r, c = row - int(offsets[i, j, 0]), column - int(offsets[i, j, 1])
                    if 0 <= r < 4 and 0 <= c < 5:
                        expected[i, j, :, row, column] = frame[i, :, r, c]
    assert torch.equal(found, expected)


def test_a_line_is_exact_until_a_bounce():
    motions = draw_motions(300, 8, make_generator(1))
    x = draw_videos(0.1 + torch.rand(300, 8, 8, generator=make_generator(0)), motions, 8, 16)
    free = (places(motions, 8, 8)[:, 2:].diff(dim=1).diff(dim=1) == 0).flatten(1).all(1)  # no bounce after two frames
    errors = frame_errors(extrapolate_motion(x[:, :4], 4), x[:, 4:]).mean(1)
    assert 10 < free.sum() < 200
    assert errors[free].max() == 0
    assert errors[~free].min() > 0, "a bounce is not on a line"


class Predicts:
    """Continues videos by a rule."""

    abilities = {"predict_frames": ""}  # noqa: RUF012
    device = torch.device("cpu")
    spec = SimpleNamespace(text=False)

    def __init__(self, rule):
        self.rule = rule

    def predict_frames(self, x, *, generator):
        return torch.cat([x, self.rule(x, 8 - x.shape[1])], 1)


class Remembers(Predicts):
    """Continues videos from a table of whole ones, some frames later."""

    def __init__(self, videos, late=0):
        known = {video[:4].numpy().tobytes(): video[4 - late :] for video in videos}
        super().__init__(lambda x, n: torch.stack([known[row.numpy().tobytes()][:n] for row in x]))


def test_the_suite_separates_the_truth_from_the_floors():
    data: Any = zoo.create_data("moving_digits")
    data.setup()
    order = EvaluationContext(None, data, EvaluationConfig()).order[:60]  # type: ignore[arg-type]
    videos = data.fetch(data.test, order, make_generator(0), train=False)[0]
    models = {
        "true": Remembers(videos),
        "still": Predicts(repeat_last),
        "line": Predicts(extrapolate_motion),
        "black": Predicts(lambda x, n: torch.zeros(len(x), n, *x.shape[2:])),
        "late": Remembers(videos, late=1),  # negative control: one frame off
    }
    suite, found = FramePredictionSuite(), {}
    context: Any = EvaluationContext(None, data, EvaluationConfig(samples=60))  # type: ignore[arg-type]
    for name, model in models.items():
        context.model = model
        assert suite.applies(context.model, data)
        found[name] = suite.measure(context)
    names = [f"frame_error{floor}_given_4@60_test" for floor in ("", "_last_frame", "_linear")]
    values = {name: [scores[full].value for full in names] for name, scores in found.items()}
    assert values["true"][0] == 0
    assert values["still"][0] == values["still"][1]
    assert values["line"][0] == values["line"][2]
    assert len({tuple(floor) for _, *floor in values.values()}) == 1, "floors do not depend on the model"
    assert 0 < values["line"][2] < values["still"][1]
    assert 0 < values["late"][0] < values["still"][0]
    first = found["still"][names[0]]
    assert len(first.parts) == 4
    assert sum(first.parts) / 4 == pytest.approx(first.value)
    assert values["black"][0] == pytest.approx(float(videos[:, 4:].double().square().sum() / 60 / 4))


def test_the_suite_needs_the_ability():
    data = zoo.create_data("moving_digits", frames=2)
    model = zoo.create_model("diffusion", data=data, denoiser={"name": "space_time_unet", "width": 8})
    assert FramePredictionSuite().applies(model, data)
    assert not FramePredictionSuite().applies(zoo.create_model("copies", data=data), data)
