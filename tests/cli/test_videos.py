"""`zoo edit --continue`: videos from files to files."""

import numpy as np
import pytest
import torch

import zoo
from zoo.cli.edit_videos import continue_videos
from zoo.core.errors import ConfigError, DataError
from zoo.core.spaces import Video
from zoo.data.video.video_file import read_video
from zoo.viz.animation import Animation, save_gif


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A checkpoint of a diffusion model of tiny videos, which one batch has trained."""
    folder = tmp_path_factory.mktemp("run")
    data = zoo.create_data("moving_digits", frames=3, size=10, batch_size=4)
    settings = {"denoiser": {"name": "space_time_unet", "width": 8}, "sampler": {"name": "heun", "steps": 2}}
    zoo.fit(zoo.create_model("diffusion", data=data, **settings), data, max_steps=1, folder=folder, progress=False)
    return folder


def test_first_frames_are_kept(run, tmp_path, capsys):
    frames = np.zeros((3, 10, 10, 3), np.uint8)
    frames[0, 2:6], frames[1, 3:7] = 255, 255
    save_gif(tmp_path / "in.gif", Animation(frames, 8))
    out = continue_videos(run, [tmp_path / "in.gif"], 2, n=2, options=["steps=2"], out=tmp_path / "out.npy")
    found = torch.from_numpy(np.load(out))
    assert found.shape == (2, 3, 1, 10, 10)
    assert torch.equal(found[:, :2, 0], torch.from_numpy(frames[:2, ..., 0] / 255).float().expand(2, -1, -1, -1))
    assert not torch.equal(found[0, 2], found[1, 2]), "each result has its own noise"
    folder = continue_videos(run, [tmp_path / "in.gif"], 1, n=2, options=["steps=2"], out=tmp_path / "clips")
    assert len(read_video(folder / "0.gif", (10, 10), 1)) == 3
    capsys.readouterr()
    with pytest.raises(ConfigError, match="--continue=3: clips of the model have 3 frames"):
        continue_videos(run, [tmp_path / "in.gif"], 3, options=["steps=2"])
    save_gif(tmp_path / "short.gif", Animation(frames[:1], 8))
    with pytest.raises(DataError, match="1 frame, but --continue=2"):
        continue_videos(run, [tmp_path / "short.gif"], 2)
    (tmp_path / "bad.gif").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"bad\.gif"):
        continue_videos(run, [tmp_path / "bad.gif"], 1)


def test_models_that_do_not_continue_are_refused(tmp_path):
    data = zoo.create_data("moving_digits", frames=3, size=10)
    zoo.fit("copies", data, max_steps=1, folder=tmp_path / "run", progress=False)
    with pytest.raises(ConfigError, match="does not continue"):
        continue_videos(tmp_path / "run", [tmp_path / "in.gif"], 1)
    assert isinstance(data.spec.x, Video)
