"""Videos: moving digits of known law, files, folders, strips and animations."""

import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.core.errors import ConfigError, DataError
from zoo.core.spaces import Video
from zoo.data.loader import make_generator
from zoo.data.video.folder import cut
from zoo.data.video.moving_digits import SPEEDS, draw_motions, draw_videos, places
from zoo.data.video.video_file import read_video
from zoo.viz.animation import Animation, gif, gif_rate, save_gif
from zoo.viz.files import write_samples
from zoo.viz.render import renderer_of, show


def walk(start, speed, frames, room):
    """Places of one axis, step by step, as a ball that turns round at the edges."""
    found, place = [], start
    for _ in range(frames):
        found.append(place)
        place += speed
        if place < 0:
            place, speed = -place, -speed
        elif place > room:
            place, speed = 2 * room - place, -speed
    return found


def test_places_are_those_of_a_ball_step_by_step():
    room, frames = 8, 20
    motions = torch.tensor([(a, b, u, v) for a in range(9) for b in (0, 3, 8) for u in SPEEDS for v in SPEEDS])
    found = places(motions, frames, room)
    for row, (a, b, u, v) in zip(found.tolist(), motions.tolist(), strict=True):
        assert [list(p) for p in zip(walk(a, u, frames, room), walk(b, v, frames, room), strict=True)] == row
    steps = found.diff(dim=1).abs()
    assert int(steps.max()) == 2, "an edge may shorten a step, and never lengthens it"


def test_each_frame_is_the_digit_at_its_place():
    digits = torch.rand(3, 8, 8, generator=make_generator(0)) + 0.1
    motions = draw_motions(3, 6, make_generator(1))
    video, at = draw_videos(digits, motions, 5, 14), places(motions, 5, 6)
    for n in range(3):
        for f in range(5):
            top, left = at[n, f].tolist()
            assert torch.equal(video[n, f, 0, top : top + 8, left : left + 8], digits[n])
            assert float(video[n, f].sum()) == pytest.approx(float(digits[n].sum()), rel=1e-5), "black elsewhere"


def test_motions_are_uniform_and_independent():
    motions = draw_motions(40_000, 8, make_generator(2))
    for column, values in ((0, 9), (1, 9)):
        shares = motions[:, column].bincount(minlength=values) / len(motions)
        assert float((shares - 1 / values).abs().max()) < 0.008  # five standard errors
    pairs = (motions[:, 2:] + 2).unbind(1)
    shares = (5 * pairs[0] + pairs[1]).bincount(minlength=25).view(5, 5)[[0, 1, 3, 4]][:, [0, 1, 3, 4]] / len(motions)
    assert float((shares - 1 / 16).abs().max()) < 0.007


def test_moving_digits_are_new_in_training_and_fixed_elsewhere():
    data = zoo.create_data("moving_digits", frames=6, size=12)
    data.setup()
    assert data.spec.x == Video(6, 1, 12, 12, levels=17)
    assert [len(x) for x, _ in (data.train, data.val, data.test)] == [1437, 720, 720]
    rows = torch.arange(20)
    first, again, other = (data.fetch(data.train, rows, make_generator(s), train=True)[0] for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    fixed = [data.fetch(data.test, rows, make_generator(s), train=False)[0] for s in (0, 1)]
    assert torch.equal(*fixed)
    data.spec.x.validate(first)
    used = [set(x[:, 0].tolist()) for x, _ in (data.train, data.val, data.test)]
    assert not used[0] & used[1] | used[0] & used[2] | used[1] & used[2], "digits of different splits differ"
    y = data.fetch(data.test, rows, make_generator(0), train=False)[1]
    assert torch.equal(y, data.test[1][:20])
    with pytest.raises(DataError, match="at least 10"):
        zoo.create_data("moving_digits", size=9)


def clip(n=5, shape=(9, 7), colour=False, seed=0):
    """Frames (n, H, W, 3) with few colours, all different."""
    generator = np.random.default_rng(seed)
    levels = generator.integers(0, 4, (n, *shape, 3 if colour else 1), dtype=np.uint8) * 85
    return np.broadcast_to(levels, (n, *shape, 3))


@pytest.mark.parametrize("colour", [False, True])
def test_gif_files_come_back(tmp_path, colour):
    frames = clip(colour=colour)
    save_gif(tmp_path / "a.gif", Animation(frames, 8))
    found = read_video(tmp_path / "a.gif", (9, 7), 3)
    assert torch.equal(found, torch.from_numpy(frames.copy()).permute(0, 3, 1, 2))
    grey = read_video(io.BytesIO(gif(Animation(clip(), 8))), (9, 7), 1)
    assert torch.equal(grey[:, 0], torch.from_numpy(clip()[..., 0].copy()))


@pytest.mark.parametrize(("suffix", "options"), [(".png", {}), (".webp", {"lossless": True})])
def test_other_formats_of_pillow(tmp_path, suffix, options):
    pictures = [Image.fromarray(frame) for frame in clip(colour=True)]
    pictures[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=pictures[1:], duration=100, **options)
    found = read_video(tmp_path / f"a{suffix}", (9, 7), 3)
    assert torch.equal(found, torch.from_numpy(clip(colour=True).copy()).permute(0, 3, 1, 2))


def test_times_of_a_file_choose_frames(tmp_path):
    """A frozen part is one frame that stays; frames at a rate contain it as often as it is shown."""
    frames = np.concatenate([clip(3), clip(3)[-1:], clip(3)[-1:], clip(2, seed=1)])
    content = gif(Animation(frames, 8), pause=0)
    assert len(read_video(io.BytesIO(content), (9, 7), 1)) == 5, "equal neighbours are stored once"
    found = read_video(io.BytesIO(content), (9, 7), 1, gif_rate(8))
    assert torch.equal(found[:, 0], torch.from_numpy(frames[..., 0].copy()))
    assert len(read_video(io.BytesIO(content), (9, 7), 1, gif_rate(8) / 2)) == 4


def test_unsafe_and_empty_files_are_refused(tmp_path, monkeypatch):
    content = gif(Animation(clip(), 8))
    with pytest.raises(ValueError, match="safe"):
        read_video(io.BytesIO(content), (9, 7), 1, max_pixels=62)
    assert len(read_video(io.BytesIO(content), (9, 7), 1, most=2)) == 2
    (tmp_path / "a.mp4").write_bytes(b"no")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "av", None)
        with pytest.raises(ConfigError, match=r"generative-zoo\[video\]"):
            read_video(tmp_path / "a.mp4", (9, 7), 1)


def test_mp4_by_the_library(tmp_path):
    av = pytest.importorskip("av")
    wave = 128 + 100 * np.sin(np.linspace(0, 2 * np.pi, 32, endpoint=False))
    frames = np.stack([np.broadcast_to(np.roll(wave, 4 * i)[None, :, None], (16, 32, 3)) for i in range(6)]).astype(
        np.uint8
    )
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.bit_rate = 32, 16, 4_000_000
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    found = read_video(tmp_path / "a.mp4", (16, 32), 1)
    assert len(found) == 6
    assert float((found[:, 0].float() - torch.from_numpy(frames[..., 0]).float()).abs().mean()) < 12, "lossy"
    assert len(read_video(tmp_path / "a.mp4", (16, 32), 1, 5)) == 3
    (tmp_path / "b.mp4").write_bytes(b"no")
    with pytest.raises(Exception, match=r"b\.mp4"):
        read_video(tmp_path / "b.mp4", (16, 32), 1)


def folder(root, lengths=(9, 4, 8, 4, 4)):
    for name in ("up", "down"):
        (root / name).mkdir()
        for number, n in enumerate(lengths):
            save_gif(root / name / f"{number}.gif", Animation(clip(n, seed=number + (name == "up") * 10), 8))


def test_a_folder_has_classes_and_keeps_files_in_one_split(tmp_path, caplog):
    folder(tmp_path)
    save_gif(tmp_path / "up" / "short.gif", Animation(clip(2, seed=99), 8))
    data = zoo.create_data("videos", path=str(tmp_path), frames=4, size=[9, 7], channels=1, batch_size=2)
    data.setup()
    assert data.spec.x == Video(4, 1, 9, 7)
    assert data.classes == ["down", "up"]
    assert sum(len(x) for x, _ in (data.train, data.val, data.test)) == 2 * (2 + 1 + 2 + 1 + 1)
    assert "up/short.gif" in caplog.text
    x, y = data.fetch(data.train, torch.arange(len(data.train[0])), make_generator(0), train=True)
    known = torch.from_numpy(clip(9, seed=10)[..., 0].copy()).float().div(255)[:4]  # of up/0.gif
    for video, label in zip(x, y, strict=True):
        if torch.equal(video[:, 0], known):
            assert int(label) == 1
    assert torch.equal(cut(torch.arange(9), 4), torch.arange(8).view(2, 4))


def test_damaged_videos_are_named(tmp_path):
    folder(tmp_path)
    (tmp_path / "up" / "bad.gif").write_bytes(b"GIF89a and nothing else")
    data = zoo.create_data("videos", path=str(tmp_path), frames=4, size=8, batch_size=2)
    with pytest.raises(DataError, match=r"1 video cannot be read: up/bad\.gif"):
        data.setup()
    data = zoo.create_data("videos", path=str(tmp_path), frames=4, size=8, batch_size=2, on_error="skip")
    data.setup()
    assert len(data.train[0])
    with pytest.raises(DataError, match=r"longest file has 9. Set data\.frames"):
        zoo.create_data("videos", path=str(tmp_path), frames=40, size=8, on_error="skip").setup()
    with pytest.raises(DataError, match="not a folder"):
        zoo.create_data("videos", path=str(tmp_path / "none"))


def test_a_damaged_video_is_named_before_the_number_of_videos(tmp_path):
    (tmp_path / "bad.gif").write_bytes(b"GIF89a and nothing else")
    with pytest.raises(DataError, match=r"1 video cannot be read: bad\.gif"):
        zoo.create_data("videos", path=str(tmp_path), frames=4, size=8)
    with pytest.raises(DataError, match="1 video, too few to split"):
        zoo.create_data("videos", path=str(tmp_path), frames=4, size=8, on_error="skip")
    save_gif(tmp_path / "bad.gif", Animation(np.zeros((4, 8, 8, 3), np.uint8), 8))
    with pytest.raises(DataError, match="1 video, too few to split"):  # the control: it can be read
        zoo.create_data("videos", path=str(tmp_path), frames=4, size=8)


def test_strips_and_animations(tmp_path):
    space = Video(3, 1, 8, 8)
    renderer, x = renderer_of(space), torch.rand(5, *space.shape, generator=make_generator(0))
    strip = renderer.single(x[0])
    assert strip.shape == (8 + 8, 4 + 3 * (8 + 4), 3)
    for f in range(3):  # time to the right
        cell = strip[4:12, 4 + 12 * f : 12 + 12 * f, 0]
        assert np.array_equal(cell, (x[0, f, 0] * 255).round().to(torch.uint8).numpy())
    moving = renderer.animation(x)
    assert len(moving.frames) == 3
    assert all(np.array_equal(moving.frames[f], renderer_of(space.frame).render(x[:, f])) for f in range(3))
    assert renderer.compare(x, x).ndim == renderer.walks(x[None]).ndim == 3
    write_samples(x, tmp_path / "all.gif", renderer)
    assert torch.equal(
        read_video(tmp_path / "all.gif", moving.frames.shape[1:3], 3).permute(0, 2, 3, 1),
        torch.from_numpy(moving.frames),
    )
    write_samples(x, tmp_path / "each", renderer)
    assert sorted(file.name for file in (tmp_path / "each").iterdir()) == [f"{n}.gif" for n in range(5)]


def test_a_run_writes_gifs_and_shows_them_in_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    data = zoo.create_data("moving_digits", frames=3, size=10)
    run = tmp_path / "run"
    zoo.fit("copies", data, max_steps=1, folder=run, progress=False)
    assert (run / "samples" / "000001.gif").read_bytes().startswith(b"GIF89a")
    assert (run / "samples" / "000001.png").is_file()
    events = EventAccumulator(str(run)).Reload()
    assert events.Images("view/animation")[0].encoded_image_string.startswith(b"GIF89a")
    assert show(zoo.load(run), 4).size[0] > 30
