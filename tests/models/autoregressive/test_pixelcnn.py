"""PixelCNN as a model: units, classes, samples."""

import itertools
import math

import pytest
import torch

import zoo
from zoo.core.spaces import Image, Label
from zoo.data.batch import Batch
from zoo.models.autoregressive.pixelcnn import PixelCNN


def model(shape=(1, 3, 3), levels=2, n_classes=0, **settings):
    torch.manual_seed(0)
    spec = zoo.DataSpec(Image(*shape, levels=levels), Label(n_classes) if n_classes else None)
    return PixelCNN(spec, **{"channels": 8, "n_layers": 3, **settings})


def shaken(made, std=0.4):
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(std=std)
    return made.eval()


def test_units_are_nats_per_image():
    one = model((3, 6, 5), levels=256)
    x = torch.randint(0, 256, (4, 3, 6, 5)) / 255
    loss = one.loss(Batch(x, torch.zeros(4, dtype=torch.long)))
    assert loss["loss"].item() == pytest.approx(90 * math.log(256), rel=1e-5)  # at first all levels are as likely
    assert loss["bits_per_dim"].item() == pytest.approx(8, rel=1e-5)
    one = shaken(one)
    loss = one.loss(Batch(x, torch.zeros(4, dtype=torch.long)))["loss"]
    assert loss.item() == pytest.approx(-one.log_prob(x).mean().item(), rel=1e-6)


def test_without_a_label_a_conditional_model_is_a_mixture():
    one = shaken(model(n_classes=3, conditional=True)).double()
    x = torch.tensor(list(itertools.product([0.0, 1.0], repeat=9))).view(-1, 1, 3, 3).double()
    with torch.no_grad():
        each = torch.stack([one.log_prob(x, torch.full((512,), k)) for k in range(3)])
        assert not torch.allclose(each[0], each[1])
        torch.testing.assert_close(one.log_prob(x).exp(), each.exp().mean(0))


def test_samples_of_a_class_are_of_that_class():
    one = model(n_classes=2, conditional=True)
    x = torch.stack([torch.zeros(1, 3, 3), torch.ones(1, 3, 3)]).repeat(8, 1, 1, 1)
    y = torch.arange(2).repeat(8)
    optimizer = torch.optim.Adam(one.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        one.loss(Batch(x, y))["loss"].backward()
        optimizer.step()
    drawn = one.sample(20, condition=torch.arange(2).repeat(10), generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (20, 1, 3, 3)
    assert drawn[::2].mean() < 0.1
    assert drawn[1::2].mean() > 0.9


def test_what_cannot_be_asked_for_is_refused():
    with pytest.raises(zoo.ZooError, match=r"model.conditional=true: .* has no class labels"):
        model(conditional=True)
    with pytest.raises(zoo.ZooError, match=r"condition: .* is unconditional"):
        model(n_classes=2).sample(2, condition=torch.tensor([0, 1]))
    with pytest.raises(zoo.ZooError, match="unknown option"):
        model().sample(2, temprature=1.0)
    assert model().sample(0).shape == (0, 1, 3, 3)
