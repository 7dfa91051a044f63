"""The path of a video against the law of its data: exact for real ones, and far for shuffled and frozen ones."""

import pytest
import torch

import zoo
from zoo.data.loader import make_generator
from zoo.data.video.moving_digits import draw_motions, draw_videos
from zoo.evaluation.features.calibration import frozen, shuffled_frames
from zoo.metrics.motion import centroids, motion_scores, track_error


@pytest.fixture(scope="module")
def data():
    found = zoo.create_data("moving_digits")
    found.setup()
    return found


def real(data, n=200):
    return data.fetch(data.test, torch.arange(n), make_generator(0), train=False)[0]


def test_centroids_by_hand():
    x = torch.zeros(1, 3, 1, 4, 5)
    x[0, 0, 0, 1, 2] = 1.0
    x[0, 1, 0, 0, 0], x[0, 1, 0, 3, 0] = 1.0, 0.5
    assert centroids(x)[0].tolist() == [[1, 2], [1, 0], [1.5, 2]], "a black frame has its middle"


def test_the_tracks_are_all_possible_ones(data):
    tracks = {tuple(row) for row in data.tracks().tolist()}
    assert (3, 5, 7, 7, 5, 3, 1, 1) in tracks
    assert (0, 1, 2, 3, 4, 5, 6, 7) in tracks
    assert (0, 0, 0, 0, 0, 0, 0, 0) not in tracks
    assert len(tracks) == len(data.tracks())


def test_real_videos_follow_the_law_exactly(data):
    x = draw_videos(torch.rand(300, 8, 8, generator=make_generator(3)), draw_motions(300, 8, make_generator(4)), 8, 16)
    assert float(track_error(x, data.tracks()).max()) < 1e-5
    assert motion_scores(real(data), data.tracks()) == {"error": pytest.approx(0, abs=1e-5), "kept": 1.0}


def test_wrong_motions_are_found_out(data):
    x = real(data)
    accelerating = draw_videos(torch.ones(1, 8, 8), torch.tensor([[0, 0, 1, 1]]), 8, 16)
    accelerating[0, 4:] = accelerating[0, 4:].flip(0)  # back without an edge
    for wrong, most in ((shuffled_frames(x, make_generator(1)), 0.05), (frozen(x), 0.0), (accelerating, 0.0)):
        found = motion_scores(wrong, data.tracks())
        assert found["kept"] <= most
        assert found["error"] > 0.5


def test_the_distance_is_that_of_an_independent_search(data):
    x = shuffled_frames(real(data, 6), make_generator(2))
    found = track_error(x, data.tracks())
    for path, error in zip(centroids(x), found.tolist(), strict=True):
        best = 0.0
        for axis in path.unbind(1):
            fits = [((axis - track) - (axis - track).mean()).square().mean() for track in data.tracks().double()]
            best += min(float(fit) for fit in fits)
        assert error == pytest.approx(best**0.5)


def test_noise_moves_the_path_a_little(data):
    x = real(data)
    noisy = (x + 0.02 * torch.randn(x.shape, generator=make_generator(5))).clamp(0, 1)
    found = motion_scores(noisy, data.tracks())
    assert 0 < found["error"] < 0.3
    assert found["kept"] > 0.95
