"""Recipes that copy other projects: each part has as many parameters as the original network."""

import pytest
import torch

from zoo.config.compose import compose
from zoo.training.train import build_model


class Described:
    """Datamodule that has only a spec, so that no files are needed."""

    def __init__(self, cfg) -> None:
        from zoo.config.compose import to_plain
        from zoo.core import registry

        self.spec = registry.build("data", to_plain(cfg.data), where="data").spec

    def check_model(self, model) -> None:
        """No condition."""


def built(name: str):
    cfg = compose(f"experiment=peer_{name}")
    return build_model(cfg, Described(cfg))


def size(module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def test_pythae() -> None:
    assert size(built("pythae_vae")) == 784 * 512 + 512 + 2 * (512 * 16 + 16) + 16 * 512 + 512 + 512 * 784 + 784


def test_pytorch_gan() -> None:
    model = built("pytorchgan_dcgan")
    assert size(model.generator) == 1_049_985
    assert size(model.discriminator) == 97_857 - 1, "a logit without a bias"


def test_image_gpt() -> None:
    model = built("imagegpt")
    block = 4 * (64 * 64 + 64) + 2 * 128 + 64 * 256 + 256 + 256 * 64 + 64
    assert size(model.net.blocks) == 8 * block
    assert size(model) == 8 * block + 128 + 3 * 64 + 784 * 64


@pytest.mark.parametrize(("name", "width", "layers", "context"), [("0.8m", 128, 4, 64), ("10m", 384, 6, 256)])
def test_nanogpt(name: str, width: int, layers: int, context: int, zoo_data: str) -> None:
    model = built(f"nanogpt_{name}")
    characters = model.spec.tokens.vocab_size
    assert characters - 65 in (1, 2)
    shifts = (2 * layers + 1) * width  # of the norms, which nanoGPT leaves out without biases
    assert size(model) - shifts == (characters + context + 1) * width + layers * (12 * width**2 + 2 * width)


def test_pythae_weighs_the_squared_error_by_a_half() -> None:
    likelihood = built("pythae_vae").likelihood
    params, x = torch.zeros(1, 1, 28, 28), torch.rand(1, 1, 28, 28)
    found = likelihood.log_prob(params, torch.zeros_like(x)) - likelihood.log_prob(params, x)
    assert float(found) == pytest.approx(0.5 * float(x.square().sum()), rel=1e-5)
