"""Speed of U-Nets beside other libraries: `pytest -m slow -s tests/benchmarks/test_peers_diffusion.py`.

Networks of about as many parameters train on the same pictures of 28x28 with Adam, and sample with as many evaluations.
Ours are not the smaller ones. Rounds alternate.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.benchmarks.test_peers_words import ratio
from zoo.api import DataSpec, create_model
from zoo.core.spaces import Image
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.models.base import Model

BATCH, STEPS, EVALUATIONS = 64, 3, 10
PICTURES = torch.rand(BATCH, 1, 28, 28, generator=make_generator(0))


def size(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def ours(attention_size: int) -> tuple[Model, nn.Module]:
    """The model, and its network."""
    unet = {"name": "unet", "width": 32, "multipliers": [1, 2, 2], "attention_size": attention_size}
    sampler = {"name": "euler", "steps": EVALUATIONS}
    model = create_model("diffusion", DataSpec(Image(1, 28, 28)), denoiser=unet, sampler=sampler)
    return model, model.denoiser


def training(network: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """Some steps of Adam."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)

    def steps() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()

    return steps


def compare(model: Model, network: nn.Module, peer: nn.Module, loss: Callable, sample: Callable) -> None:
    """Print and check both ratios."""
    assert size(network) > 0.95 * size(peer), "about as large, or larger"
    print(f"\n{size(network):,} and {size(peer):,} parameters, {torch.get_num_threads()} threads; training, sampling:")
    assert ratio(training(network, lambda: model.loss(Batch(PICTURES, None))["loss"]), training(peer, loss)) >= 1
    model.eval(), peer.eval()
    assert ratio(lambda: model.sample(BATCH), sample) >= 1


@pytest.mark.slow
def test_beside_denoising_diffusion_pytorch() -> None:
    peer = pytest.importorskip("denoising_diffusion_pytorch")
    network = peer.Unet(dim=32, dim_mults=(1, 2, 2), channels=1)
    diffusion = peer.GaussianDiffusion(network, image_size=28, timesteps=1000, sampling_timesteps=EVALUATIONS)
    compare(*ours(14), network, lambda: diffusion(PICTURES), lambda: diffusion.sample(batch_size=BATCH))


@pytest.mark.slow
def test_beside_diffusers() -> None:
    peer = pytest.importorskip("diffusers")
    network = peer.UNet2DModel(
        sample_size=28, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(32, 64, 64),
        norm_num_groups=8, down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    schedule = peer.DDPMScheduler(1000)
    pipeline = peer.DDIMPipeline(network, peer.DDIMScheduler(1000))
    pipeline.set_progress_bar_config(disable=True)

    def loss() -> Tensor:
        noise, t = torch.randn_like(PICTURES), torch.randint(1000, (BATCH,))
        return nn.functional.mse_loss(network(schedule.add_noise(PICTURES, noise, t), t).sample, noise)

    sample = lambda: pipeline(batch_size=BATCH, num_inference_steps=EVALUATIONS, output_type="np")  # noqa: E731
    compare(*ours(14), network, loss, sample)
