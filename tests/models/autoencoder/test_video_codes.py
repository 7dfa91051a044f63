"""Codes of videos: each frame has its own, and a prior over them continues videos."""

import pytest
import torch

import zoo
from zoo.core.errors import DataError, ZooError
from zoo.core.registry import build
from zoo.core.spaces import Label, Video
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.nn.networks.spatial import SpatialResNet

SPEC = zoo.DataSpec(Video(4, 2, 8, 6, levels=17), Label(3), name="clips")
NETWORK = {"name": "resnet", "width": 8, "latent_side": 2}
VQVAE = {"name": "vqvae", "network": NETWORK, "quantizer": {"name": "vq", "n_codes": 16}}
PRIOR = {"name": "masked_diffusion", "backbone": {"name": "space_time_encoder", "d_model": 16, "n_layers": 2}}


def videos(n=3):
    return torch.rand(n, *SPEC.shape, generator=make_generator(1))


def varied(model):
    """With an encoder whose codes differ from frame to frame, as those of a trained one do."""
    for layer in (model.network.encoder[0], model.network.encoder[-1]):
        torch.nn.init.normal_(layer.weight, std=3.0)
    return model.eval()


def two_stages():
    torch.manual_seed(0)
    model = build("model", {"name": "two_stage", "first_stage": VQVAE, "second_stage": PRIOR}, SPEC)
    for p in model.prior.parameters():
        torch.nn.init.normal_(p, std=0.3)
    varied(model.first_stage)
    return model.eval()


def test_frames_are_encoded_and_decoded_one_by_one():
    torch.manual_seed(0)
    net = SpatialResNet(SPEC.shape, 5, 5, 2 * 4, width=8, latent_side=2).eval()  # two parameters for each value
    x = videos()
    z = net.encode(x)
    assert net.grid == (4, 2, 2)
    assert z.shape == (3, 5, 4, 2, 2)
    params = net.decode(z)
    assert params.shape == (3, 8, 2, 8, 6)
    for frame in range(4):
        alone = net.encoder(x[:, frame])
        torch.testing.assert_close(z[:, :, frame], alone)
        of_frame = net.decoder(alone).unflatten(1, (2, 2))  # (B, parameter, C, H, W)
        torch.testing.assert_close(params.unflatten(1, (2, 4))[:, :, frame], of_frame)


def test_the_codes_of_a_frame_do_not_depend_on_the_others():
    torch.manual_seed(0)
    model, x = varied(build("model", VQVAE, SPEC)), videos()
    space = model.latent_space()
    assert space.frames == space.grid[0] == 4
    codes, changed = model.to_latent(x), x.clone()
    changed[:, 2:] = 0
    assert torch.equal(model.to_latent(changed)[:, :2], codes[:, :2])
    assert not torch.equal(model.to_latent(changed)[:, 2:], codes[:, 2:])


def test_videos_are_continued():
    model, x = two_stages(), videos()
    found = model.predict_frames(x[:, :2], generator=make_generator(0), steps=3)
    assert torch.equal(found[:, :2], x[:, :2])
    assert found.shape == x.shape
    again = model.predict_frames(x[:, :2], generator=make_generator(0), steps=3)
    assert torch.equal(found, again)
    read = []
    model.prior.net.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    model.predict_frames(x[:, :2], generator=make_generator(0), steps=3)
    codes = model.to_latent(x).flatten(1)
    known = codes.shape[1] // 2
    assert all(torch.equal(tokens[:, 1 : 1 + known], codes[:, :known]) for tokens in read)
    assert bool((read[0][:, 1 + known :] == model.prior.mask_token).all())


def test_frames_that_do_not_fit_are_refused():
    model, x = two_stages(), videos()
    for wrong in (x, x[:, :0], x[:, :2, :1]):
        with pytest.raises(DataError, match="not the first frames of videos 4x2x8x6"):
            model.predict_frames(wrong)
    with pytest.raises(ZooError, match="learns codes on a plane"):
        build("model", {"name": "two_stage", "first_stage": VQVAE, "second_stage": "pixelcnn"}, SPEC)
    image = zoo.DataSpec(SPEC.x.frame, Label(3))
    still = build("model", {"name": "two_stage", "first_stage": VQVAE, "second_stage": "masked_diffusion"}, image)
    assert "predict_frames" not in still.abilities


def test_a_prior_learns_codes_in_time():
    """The second frame repeats the first: a trained prior continues with codes that decode to it."""
    torch.manual_seed(0)
    spec = zoo.DataSpec(Video(2, 1, 4, 4, levels=2), name="repeats")
    network = {"name": "resnet", "width": 8, "latent_side": 2}
    given = {**VQVAE, "network": network, "quantizer": {"name": "fsq", "levels": [3, 3]}}
    model = build("model", {"name": "two_stage", "first_stage": given, "second_stage": PRIOR}, spec)
    varied(model.first_stage)
    frame = (torch.rand(64, 1, 1, 4, 4, generator=make_generator(2)) > 0.5).float()
    x = frame.expand(-1, 2, -1, -1, -1).contiguous()
    optimizer = torch.optim.Adam(model.prior.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(Batch(x, torch.zeros(64, dtype=torch.long)))["loss"].backward()
        optimizer.step()
    model.eval()
    codes = model.to_latent(x)
    assert len(codes[:, 0].flatten(1).unique(dim=0)) > 8  # frames differ
    wanted = model.decoded(codes)[:, 1]

    def equal(found):
        return torch.isclose(found[:, 1], wanted, atol=1e-5, rtol=0).flatten(1).all(1).float().mean()

    assert equal(model.predict_frames(x[:, :1], generator=make_generator(3))) > 0.7
    assert equal(model.predict_frames(x[:, :1].roll(1, 0), generator=make_generator(3))) < 0.2  # other first frames
