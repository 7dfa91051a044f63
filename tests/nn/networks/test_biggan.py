"""BigGAN's generator: batch normalisation given a condition, parts of the noise, and training of the recipe's parts."""

import pytest
import torch
from torch import nn

import zoo
from tests.contracts.specs import SPECS, examples, make
from zoo.core.registry import build
from zoo.nn.losses.gan_terms import orthogonal_penalty
from zoo.nn.networks.biggan import BigGANDecoder, ConditionalBatchNorm, ConditionalBlock

SHAPE = (1, 8, 8)  # of two blocks


def awake(network: nn.Module) -> nn.Module:
    """Gains and biases that follow the condition, as after a training."""
    for module in network.modules():
        if isinstance(module, ConditionalBatchNorm):
            nn.init.normal_(module.affine.weight, std=0.5)
    return network


def test_conditional_batch_norm_by_hand() -> None:
    torch.manual_seed(0)
    norm = ConditionalBatchNorm(3, 4).double()
    x, condition = torch.randn(5, 3, 2, 2, dtype=torch.double), torch.randn(5, 4, dtype=torch.double)
    torch.testing.assert_close(norm(x, condition), nn.functional.batch_norm(x, None, None, training=True), msg="begins")
    awake(norm)
    wanted = torch.empty_like(x)
    for i in range(5):
        for c in range(3):
            normal = (x[i, c] - x[:, c].mean()) / (x[:, c].var(unbiased=False) + 1e-5).sqrt()
            gain, bias = (norm.affine.weight[c + shift] @ condition[i] for shift in (0, 3))
            wanted[i, c] = (1 + gain) * normal + bias
    torch.testing.assert_close(norm(x, condition), wanted)
    assert not torch.allclose(norm(x, condition.roll(1, 0)), wanted, atol=1e-2), "each sample has its own condition"


def test_each_part_of_the_noise_reaches_its_layer_and_the_class_reaches_every_block() -> None:
    torch.manual_seed(0)
    network = awake(BigGANDecoder(9 + 4, SHAPE, 4, width=8)).eval()
    blocks = [block for block in network.blocks if isinstance(block, ConditionalBlock)]
    assert len(blocks) == 2
    outputs: list[torch.Tensor] = []
    for block in blocks:
        block.register_forward_hook(lambda module, given, out: outputs.append(given[1]))
    v = torch.randn(2, 13, requires_grad=True)
    network(v)
    (first, second), (noise, label) = outputs, v.split((9, 4), dim=1)
    assert torch.equal(first, torch.cat([noise[:, 3:6], label], 1))
    assert torch.equal(second, torch.cat([noise[:, 6:], label], 1))
    (gradient,) = torch.autograd.grad(network(v).square().sum(), v)
    assert (gradient != 0).all(), "every number has an influence"
    with torch.no_grad():
        stem = network.stem(noise[:, :3])
        assert stem.shape == (2, 16 * 4 * 4)


@pytest.mark.parametrize(("in_dim", "options"), [(2, {}), (9, {"hierarchical": False})])
def test_noise_that_is_not_split_reaches_every_layer(in_dim: int, options: dict[str, bool]) -> None:
    network = BigGANDecoder(in_dim, SHAPE, width=8, **options)
    assert [part.shape[1] for part in network.split(torch.randn(1, in_dim))] == [in_dim] * 3
    assert network(torch.randn(4, in_dim)).shape == (4, *SHAPE)


def test_a_gan_tells_the_network_which_numbers_describe_the_class() -> None:
    model = make("biggan", "image")
    assert model.generator.network.noise_dim == model.hparams["latent_dim"]
    bare = make("biggan", "image", conditional=False)
    assert bare.generator.network.noise_dim == model.hparams["latent_dim"]
    assert make("gan", "image", conditional=True).generator.network is not None, "other networks are told nothing"


def test_statistics_over_devices_are_lightnings() -> None:
    """`trainer.sync_batchnorm=true` converts what torch converts."""
    network = nn.SyncBatchNorm.convert_sync_batchnorm(BigGANDecoder(6, SHAPE, width=8))
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in network.modules()) == 5
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())


@pytest.mark.parametrize("name", ["biggan", "gan", "r3gan"])
def test_orthogonal_filters_are_a_term_of_every_generator(name: str) -> None:
    model, batch = make(name, "image", orthogonal_weight=0.3).eval(), examples(SPECS["image"], 8)
    matrices = [p for p in model.generator.network.parameters() if p.ndim > 1]
    torch.manual_seed(1)
    terms = model.generator_terms(batch)
    torch.testing.assert_close(terms["orthogonal"], 0.3 * orthogonal_penalty(matrices).detach())
    model.hparams["orthogonal_weight"] = 0.0
    torch.manual_seed(1)
    torch.testing.assert_close(terms["loss_g"] - terms["orthogonal"], model.generator_terms(batch)["loss_g"])


def test_images_that_are_not_there_are_refused() -> None:
    with pytest.raises(zoo.ZooError, match="biggan: needs images"):
        build("decoder", "biggan", 4, (2,))
