"""Guidance by an early copy of the network."""

import pytest
import pytorch_lightning as L
import torch

import zoo
from tests.contracts.specs import SPECS, examples
from tests.contracts.test_models import train
from zoo.core.errors import ConfigError
from zoo.core.spaces import Image
from zoo.data.loader import ShuffledSampler, TensorLoader
from zoo.models.diffusion.diffusion import Diffusion

NETWORK = {"name": "mlp", "width": 16, "depth": 1}
PLAIN = zoo.DataSpec(Image(1, 8, 8, levels=17), name="unlabelled")


def model(spec: zoo.DataSpec = PLAIN, **settings) -> Diffusion:
    torch.manual_seed(0)
    built = Diffusion(spec, denoiser=NETWORK, sampler={"name": "heun", "steps": 2}, autoguidance=0.3, **settings)
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return built


def test_it_is_affine_in_the_two_networks_and_a_weight_of_one_is_unguided() -> None:
    guided = model().eval()
    z = torch.randn(3, 1, 8, 8)
    draw = lambda **options: guided.sample(3, generator=torch.Generator().manual_seed(0), **options)  # noqa: E731
    unguided = draw()
    with pytest.raises(ConfigError, match="guidance=2"):
        draw(guidance=2.0)
    guided.weak_is_stored = True
    assert torch.equal(draw(guidance=1.0), unguided), "bit for bit"
    assert not torch.allclose(draw(guidance=2.0), unguided)
    with torch.no_grad():
        strong, weak = guided.estimate(z, 0.5)[0], guided.weak_estimate(z, 0.5)[0]
        assert guided.denoiser is not guided.weak
        again = model().eval()
        again.load_state_dict(guided.state_dict())
        again.restore_note(guided.note())
        expected = draw(guidance=2.0)
        assert torch.equal(again.sample(3, generator=torch.Generator().manual_seed(0), guidance=2.0), expected)
        torch.testing.assert_close(guided.denoise_fn(None, 3.0)(z, 0.5)[0], weak + 3 * (strong - weak))
        assert not torch.allclose(strong, weak)


def test_labels_go_to_both_networks() -> None:
    guided = model(SPECS["image"]).eval()
    guided.weak_is_stored = True
    z, y = torch.randn(3, 1, 8, 8), torch.tensor([1, 2, 3])
    with torch.no_grad():
        strong, weak = guided.estimate(z, 0.5, y)[0], guided.weak_estimate(z, 0.5, y)[0]
        torch.testing.assert_close(guided.denoise_fn(y, 2.0)(z, 0.5)[0], weak + 2 * (strong - weak))
        assert not torch.allclose(weak, guided.weak_estimate(z, 0.5, None)[0])


def test_the_copy_is_stored_once_at_the_first_validation_after_its_share() -> None:
    class Watch(L.Callback):
        def __init__(self) -> None:
            self.seen: list[tuple[bool, torch.Tensor, torch.Tensor]] = []

        def on_validation_end(self, trainer, pl_module) -> None:
            weights = (part.head.bias.detach().clone() for part in (pl_module.denoiser, pl_module.weak))
            self.seen.append((pl_module.weak_is_stored, *weights))

    guided, watch = model(), Watch()
    batch = examples(SPECS["image"], 16)
    loader = TensorLoader(lambda i, g: (batch.x[i], batch.y[i]), ShuffledSampler(16, 0), 16, drop_last=True)
    trainer = L.Trainer(
        max_steps=8, val_check_interval=2, check_val_every_n_epoch=None, max_epochs=-1, accelerator="cpu",
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[watch],
    )  # fmt: skip
    trainer.fit(guided, loader, loader)
    stored = [is_stored for is_stored, *_ in watch.seen[-4:]]
    assert stored == [False, True, True, True]
    early = watch.seen[-3][1]
    assert all(torch.equal(weak, early) for _, _, weak in watch.seen[-3:])
    assert not torch.equal(watch.seen[-1][1], early), "the network goes on"


def test_the_copy_is_not_trained() -> None:
    guided = model()
    before = {k: v.clone() for k, v in guided.weak.state_dict().items()}
    train(guided, 2)
    assert all(torch.equal(v, before[k]) for k, v in guided.weak.state_dict().items())
    assert set(guided.modules_to_average()) == {"denoiser"}
    assert Diffusion(PLAIN, denoiser=NETWORK).weak is None
