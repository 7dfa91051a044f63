"""StyleGAN2's generator: modulation against one convolution per sample, resizing, mean styles, noise, path lengths."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import zoo
from tests.contracts.specs import SPECS, examples, make
from tests.contracts.test_models import train
from zoo.nn.blocks.modulated_conv import BilinearResize, EqualizedLinear, ModulatedConv
from zoo.nn.losses.gan_terms import path_lengths
from zoo.nn.networks.gan_heads import mix_styles
from zoo.nn.networks.stylegan2 import MEAN_DECAY, StyleDecoder


def per_sample(layer: ModulatedConv, x: torch.Tensor, w: torch.Tensor, demodulate: bool) -> torch.Tensor:
    """Equations 1 to 3: scale each sample's kernel, divide by its norm, and convolve that sample alone."""
    results = []
    for image, style in zip(x, layer.affine(w), strict=True):
        kernel = layer.weight * layer.gain * style[None, :, None, None]
        if demodulate:
            kernel = kernel / kernel.square().sum((1, 2, 3), keepdim=True).sqrt()
        results.append(F.conv2d(image[None], kernel, padding=kernel.shape[-1] // 2))
    return torch.cat(results)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("demodulate", [True, False])
def test_modulation_equals_one_convolution_per_sample(demodulate: bool, kernel: int) -> None:
    torch.manual_seed(0)
    layer = ModulatedConv(5, 4, 6, kernel, demodulate).double()
    x, w = torch.randn(3, 5, 7, 6, dtype=torch.double), torch.randn(3, 6, dtype=torch.double)
    torch.testing.assert_close(layer(x, w), per_sample(layer, x, w, demodulate), rtol=1e-6, atol=1e-6)
    assert not torch.allclose(layer(x, w), per_sample(layer, x, w, not demodulate), atol=1e-3), "negative control"
    assert not torch.allclose(layer(x, w), layer(x, w.roll(1, 0)), atol=1e-3), "each sample has its own style"


def test_demodulated_maps_have_unit_variance_at_any_style() -> None:
    torch.manual_seed(0)
    x, w = torch.randn(64, 32, 16, 16), 5 * torch.randn(64, 8)
    for demodulate, close in ((True, True), (False, False)):
        layer = ModulatedConv(32, 8, 8, demodulate=demodulate)
        inner = layer(x, w)[..., 1:-1, 1:-1].detach()  # borders see zeros
        spread = inner.var((2, 3)).mean(1)  # of each sample
        assert bool(((spread - 1).abs() < 0.15).all()) == close


def test_equalised_layers_begin_alike_at_every_speed_and_learn_at_their_own() -> None:
    x, steps = torch.randn(2000, 64), []
    for speed in (1.0, 0.01):
        torch.manual_seed(0)
        layer = EqualizedLinear(64, 32, bias=0.5, speed=speed)
        before = layer(x).detach()
        assert before.std() == pytest.approx(1, abs=0.05)
        torch.testing.assert_close(before.mean(), torch.tensor(0.5), atol=0.05, rtol=0)
        optimizer = torch.optim.Adam(layer.parameters(), 1e-3)
        layer(x).square().sum().backward()
        optimizer.step()
        steps.append(float((layer(x) - before).detach().abs().mean()))
    assert steps[1] / steps[0] == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize(("size", "to"), [((4, 4), (8, 8)), ((3, 5), (5, 9)), ((1, 1), (2, 3))])
def test_resizing_is_bilinear_interpolation(size: tuple[int, int], to: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(BilinearResize(size, to)(x), F.interpolate(x, to, mode="bilinear"))


def test_colours_of_all_resolutions_add_up() -> None:
    """The picture is linear in the colour layers; without the last one it is the enlarged picture below."""
    torch.manual_seed(0)
    network, w = StyleDecoder(6, (3, 16, 16), width=4, style_dim=8).eval(), torch.randn(2, 8)
    whole = network.synthesis(w)
    parts = []
    for keep in range(3):
        kept = [layer.weight.data.clone() for layer in network.colours]
        for i, layer in enumerate(network.colours):
            layer.weight.data.mul_(float(i == keep))
        parts.append(network.synthesis(w))
        for layer, weight in zip(network.colours, kept, strict=True):
            layer.weight.data.copy_(weight)
    torch.testing.assert_close(sum(parts), whole)
    lowest = F.interpolate(F.interpolate(torch.randn(2, 3, 4, 4), (8, 8), mode="bilinear"), (16, 16), mode="bilinear")
    assert lowest.shape == parts[0].shape
    assert (parts[0] - parts[0].mean((2, 3), keepdim=True)).abs().sum() > 0


def test_noise_is_new_in_training_and_fixed_in_evaluation() -> None:
    torch.manual_seed(0)
    network, v = StyleDecoder(6, (1, 8, 8), width=4, style_dim=8), torch.randn(2, 6)
    torch.testing.assert_close(network(v), network(v), msg="its strength begins at zero")
    for name, strength in network.named_parameters():
        if name.endswith("strength"):
            nn.init.constant_(strength, 0.5)
    assert not torch.allclose(network(v), network(v))
    network.eval()
    assert torch.equal(network(v), network(v))
    torch.testing.assert_close(network(v)[:1], network(v[:1]))
    bare = StyleDecoder(6, (1, 8, 8), width=4, style_dim=8, noise=False)
    torch.testing.assert_close(bare(v), bare(v))
    assert not any("strength" in name or "fixed" in name for name in bare.state_dict())


def test_styles_do_not_depend_on_the_length_of_noise_or_of_labels() -> None:
    network, v = StyleDecoder(6 + 2, (1, 8, 8), 2, width=4, style_dim=8).eval(), torch.randn(3, 8)
    scaled = v * torch.tensor([5.0] * 6 + [0.2] * 2)
    torch.testing.assert_close(network.mapping(v), network.mapping(scaled))
    assert not torch.allclose(network.mapping(v), network.mapping(v * torch.tensor([-1.0] * 6 + [1.0] * 2)))


def test_psi_moves_samples_to_the_one_of_the_mean_style() -> None:
    torch.manual_seed(0)
    model = make("stylegan2", "image")
    network = model.generator_ema.average.network
    train(model, 3)
    assert network.mean_style.abs().max() > 0, "training follows the mean, and the average has it"
    assert torch.equal(network.mean_style, model.generator.network.mean_style)
    draws = {psi: model.sample(16, generator=torch.Generator().manual_seed(0), psi=psi) for psi in (0.0, 0.5, 1.0)}
    typical = model.to_data_range(model.generator_ema.average.synthesize(network.mean_style[None]).detach())
    torch.testing.assert_close(draws[0.0], typical.expand(16, -1, -1, -1))
    spread = [float(draws[psi].std(0).mean()) for psi in (0.0, 0.5, 1.0)]
    assert spread[0] < 1e-6 < spread[1] < spread[2]
    plain = model.sample(16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(plain, draws[1.0])
    w = model.generator_ema.average.style(torch.zeros(1, model.latent_dim), torch.zeros(1, dtype=torch.long))
    assert torch.equal(w, model.generator_ema.average.style(torch.zeros(1, model.latent_dim), torch.zeros(1).long()))
    with pytest.raises(zoo.ZooError, match=r"psi=0.5: this generator has no styles. Use truncation=1"):
        make("gan", "image").sample(2, psi=0.5)


def test_the_mean_style_is_the_mean_of_styles() -> None:
    """Batches of one law: the running mean comes as near as its window allows; one batch alone does not."""
    torch.manual_seed(0)
    network = StyleDecoder(4, (1, 4, 4), width=4, style_dim=8)
    true = network.eval().mapping(torch.randn(100_000, 4)).mean(0).detach()
    network.train()
    with torch.no_grad():
        for _ in range(3000):
            network.mapping(torch.randn(16, 4))
    assert (network.mean_style - true).norm() < 0.05 * true.norm()
    before = network.mean_style.clone()
    network.eval().mapping(torch.randn(16, 4))
    assert torch.equal(network.mean_style, before), "evaluation does not move it"


# -- mixed styles --


def test_each_layer_has_the_style_of_its_side_of_the_crossover() -> None:
    """Styles that every convolution and colour receives, of samples that cross over at different layers."""
    torch.manual_seed(0)
    network = StyleDecoder(6, (1, 16, 16), width=4, style_dim=8).eval()
    assert network.n_styles == 6, "one convolution at 4x4, two at 8x8 and at 16x16, and the last colours"
    w, other, crossover = torch.randn(7, 8), torch.randn(7, 8), torch.arange(7)
    seen: list[tuple[bool, torch.Tensor]] = []
    for layer in network.modules():
        if isinstance(layer, ModulatedConv):
            layer.register_forward_hook(lambda layer, given, _: seen.append((layer.demodulate, given[1])))
    mixed = network.synthesis(mix_styles(w, other, crossover, network.n_styles))
    layers, convolutions, colours = [0, 1, 1, 2, 3, 3, 4, 5], [], []
    assert [demodulated for demodulated, _ in seen] == [True, False, True, True, False, True, True, False]
    for demodulated, style in seen:
        number = len(convolutions)  # colours have the style of the next convolution
        (convolutions if demodulated else colours).append(number)
        wanted = torch.stack([w[i] if number < i else other[i] for i in range(7)])
        assert torch.equal(style, wanted)
    assert sorted([*convolutions, *colours]) == layers
    torch.testing.assert_close(mixed[6], network.synthesis(w)[6])
    torch.testing.assert_close(mixed[0], network.synthesis(other)[0])
    assert not torch.allclose(mixed[1:6], network.synthesis(w)[1:6], atol=1e-4)
    whole = network.synthesis(w[:, None].expand(-1, 6, -1))
    torch.testing.assert_close(whole, network.synthesis(w), msg="one style for all layers")


def test_coarse_maps_do_not_depend_on_the_style_after_the_crossover() -> None:
    torch.manual_seed(0)
    network, maps = StyleDecoder(6, (1, 8, 8), width=4, style_dim=8).eval(), []
    next(iter(network.convs[0].children())).register_forward_hook(lambda *call: maps.append(call[2]))
    w, (one, two) = torch.randn(3, 8), torch.randn(2, 3, 8)
    for crossover, equal in ((1, True), (0, False)):
        maps.clear()
        images = [network.synthesis(mix_styles(w, x, torch.full((3,), crossover), 4)) for x in (one, two)]
        assert torch.equal(*maps) == equal
        assert not torch.allclose(*images, atol=1e-3)


def test_mixing_in_training() -> None:
    torch.manual_seed(0)
    model, z = make("stylegan2", "image", style_mixing=0.5), torch.randn(2000, 16)
    y, network = torch.zeros(2000, dtype=torch.long), model.generator.network
    model.generator.eval()
    plain = model.generator(z, y)
    model.eval()
    assert torch.equal(model.generated(z, y), plain), "validation does not mix"
    model.train()
    model.generator.eval()  # without new noise
    torch.manual_seed(1)
    with torch.no_grad():
        found = model.generated(z, y)
        torch.manual_seed(1)
        crossover = torch.randint(1, network.n_styles, (2000,))
        crossover = torch.where(torch.rand(2000) < 0.5, crossover, network.n_styles)
        other = torch.randn(2000, 16)
        w, v = model.generator.style(z, y), model.generator.style(other, y)
        by_hand = torch.stack([w] * network.n_styles, 1)
        for row, layer in enumerate(crossover):
            by_hand[row, layer:] = v[row]
        torch.testing.assert_close(found, model.generator.synthesize(by_hand))
    same = (found == plain).flatten(1).all(1).float().mean()
    assert same == pytest.approx(0.5, abs=5 * 0.5 / 2000**0.5)
    model.generator.train()
    before = network.mean_style.clone()
    network.layers.requires_grad_(False)
    torch.manual_seed(1)
    model.generated(z, y)
    wanted = before.lerp(torch.cat([w, v]).mean(0), 1 - MEAN_DECAY)
    torch.testing.assert_close(network.mean_style, wanted, msg="moved once, by both")


def test_samples_with_one_common_fine_style() -> None:
    torch.manual_seed(0)
    model = make("stylegan2", "image")
    train(model, 2)
    network = model.generator_ema.average.network
    z = model.randn(5, model.latent_dim, generator=(draw := torch.Generator().manual_seed(0)))
    fine, y = model.randn(1, model.latent_dim, generator=draw), torch.zeros(5, dtype=torch.long)
    with torch.no_grad():
        w, v = (model.generator_ema.average.style(part, y[: len(part)]) for part in (z, fine))
        for psi in (1.0, 0.5):
            styles = torch.cat([w[:, None].expand(-1, 2, -1), v[None].expand(5, network.n_styles - 2, -1)], 1)
            styles = network.mean_style + psi * (styles - network.mean_style)
            wanted = model.to_data_range(model.generator_ema.average.synthesize(styles))
            found = model.sample(5, generator=torch.Generator().manual_seed(0), crossover=2, psi=psi)
            torch.testing.assert_close(found, wanted)
    plain = model.sample(5, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(plain, model.sample(5, generator=torch.Generator().manual_seed(0), crossover=2))
    with pytest.raises(zoo.ZooError, match=r"crossover=9: the styles are of 4 layers. Use 1 to 3"):
        model.sample(2, crossover=9)


def test_mixing_needs_styles_and_no_codes() -> None:
    with pytest.raises(zoo.ZooError, match=r"model.style_mixing=0.9: this generator has no styles. Use 0"):
        make("gan", "image", style_mixing=0.9)
    with pytest.raises(zoo.ZooError, match=r"crossover=1: this generator has no styles. Leave it out"):
        make("gan", "image").sample(2, crossover=1)
    with pytest.raises(zoo.ZooError, match="do not have the codes of one noise"):
        make("stylegan2", "image", style_mixing=0.9, auxiliary="codes")


# -- path lengths --


def test_path_lengths_of_a_linear_map() -> None:
    """G(w) = A w has J = A: E ||A^T y||^2 = ||A||_F^2 / (H W); without the scale it is H W times as large."""
    torch.manual_seed(0)
    matrix = torch.randn(12, 5, dtype=torch.double)
    w = torch.randn(20_000, 5, dtype=torch.double, requires_grad=True)
    images = (w @ matrix.T).view(-1, 1, 3, 4)
    squares = path_lengths(images, w).square()
    wanted = float(matrix.square().sum()) / 12
    error = 5 * float(squares.std()) / len(w) ** 0.5
    assert abs(float(squares.mean()) - wanted) < error < 0.1 * wanted
    turned = torch.linalg.qr(torch.randn(12, 5, dtype=torch.double)).Q
    x = (w @ turned.T).view(-1, 1, 3, 4)
    torch.manual_seed(1)
    one = path_lengths(x, w)
    torch.manual_seed(1)
    torch.testing.assert_close(path_lengths(3 * x, w), 3 * one)


def test_path_length_penalty_of_a_gan(monkeypatch: pytest.MonkeyPatch) -> None:
    """The distance from the mean, on every fourth generator step with four times the weight."""
    model, batch = make("stylegan2", "image", path_length_weight=3.0), examples(SPECS["image"], 8)
    model.path_length_mean.fill_(0.25)
    z, y = torch.randn(8, model.latent_dim), batch.y
    torch.manual_seed(2)
    found = model.path_length_penalty(z, y)
    assert model.path_length_mean == 0.25, "only training moves it"
    torch.manual_seed(2)
    w = model.generator.style(z, y)
    lengths = path_lengths(model.generator.synthesize(w), w)
    torch.testing.assert_close(found, ((lengths - 0.25) ** 2).mean())
    gradients = torch.autograd.grad(found, [model.generator.network.constant])
    assert gradients[0].abs().max() > 0
    due = []
    for step in range(8):
        monkeypatch.setattr(type(model), "step", step)
        torch.manual_seed(2)
        due.append(model.generator_penalties(z, y))
    assert [bool(terms) for terms in due] == [False, False, False, True] * 2
    torch.testing.assert_close(due[3]["path_length"], 4 * 3.0 * found)


def test_the_mean_length_follows_in_training() -> None:
    model = make("stylegan2", "image", path_length_interval=1)
    train(model, 3)
    assert model.path_length_mean > 0
    assert "path_length_mean" not in make("gan", "image").state_dict(), "files of other GANs keep their keys"


@pytest.mark.parametrize("key", ["image", "vector"])
def test_path_lengths_of_a_generator_without_styles(key: str) -> None:
    model = make("gan", key, path_length_weight=1.0, path_length_interval=1)
    terms = model.generator_terms(examples(SPECS[key], 8))
    assert terms["path_length"] > 0
    terms["loss_g"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.generator.parameters())
