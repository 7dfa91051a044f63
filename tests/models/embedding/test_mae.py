"""Masked autoencoder: what the loss and the encoder see, the order of patches, and the best prediction."""

import pytest
import torch

import zoo
from tests.contracts.specs import SPECS, examples
from zoo.core.spaces import Image
from zoo.data.batch import Batch
from zoo.models.embedding.mae import MAE, default_patch
from zoo.nn.blocks.patch_transformer import PatchTransformer, from_patches, to_patches
from zoo.nn.losses.masked_patches import hidden_patch_error, normalized_patches

SMALL = {"d_model": 32, "n_layers": 2, "n_heads": 2, "decoder_layers": 1}


def small(spec: zoo.DataSpec = SPECS["image"], **settings) -> MAE:
    """A model with random weights, also in the layers that start at zero."""
    torch.manual_seed(0)
    model = MAE(spec, **{**SMALL, **settings})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def orders(model: MAE, n: int, seed: int = 0) -> torch.Tensor:
    return model.random_order(n, torch.Generator().manual_seed(seed))


def test_the_loss_ignores_predictions_of_visible_patches() -> None:
    """Beside an explicit loop; the mean over all patches is the negative control."""
    torch.manual_seed(0)
    prediction, target = torch.randn(3, 6, 4, dtype=torch.float64, requires_grad=True), torch.randn(3, 6, 4).double()
    hidden = torch.tensor([[True, False, True, True, False, True]]).expand(3, -1)
    loss = hidden_patch_error(prediction, target, hidden)
    squares = [
        (p - t) ** 2
        for b in range(3)
        for i in (0, 2, 3, 5)
        for p, t in zip(prediction[b, i], target[b, i], strict=True)
    ]
    torch.testing.assert_close(loss, sum(squares) / len(squares))
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert not gradient[~hidden].any()
    assert gradient[hidden].all()
    (of_all,) = torch.autograd.grad((prediction - target).square().mean(), prediction)
    assert of_all[~hidden].all()


def test_normalized_patches_have_mean_zero_and_variance_one() -> None:
    torch.manual_seed(0)
    patches = torch.randn(2, 5, 16, dtype=torch.float64) * 3 + 1
    patches[0, 0] = 0.7
    found = normalized_patches(patches)
    assert not found[0, 0].any(), "a patch of one brightness"
    torch.testing.assert_close(found[1].mean(-1), torch.zeros(5).double())
    torch.testing.assert_close(found[1].var(-1, correction=0), torch.ones(5).double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(normalized_patches(2 * patches + 1)[1], found[1], rtol=1e-5, atol=1e-5)


def test_patches_are_squares_of_the_picture_in_raster_order() -> None:
    x = torch.rand(2, 3, 6, 4)
    patches = to_patches(x, 2)
    assert torch.equal(patches[1, 3].view(3, 2, 2), x[1, :, 2:4, 2:4])
    assert torch.equal(from_patches(patches, 2, 3, 2), x)


def test_hidden_patches_have_no_influence_on_the_prediction() -> None:
    """An encoder that reads all patches is the negative control."""
    model, (x, _) = small(), examples(SPECS["image"], 5)
    order = orders(model, 5)
    patches, visible = model.patches(x), order[:, : model.n_visible]
    hidden = torch.ones_like(order, dtype=torch.bool).scatter(1, visible, False)
    changed = torch.where(hidden[..., None], torch.rand_like(patches), patches)
    assert torch.equal(model.predict(patches, visible), model.predict(changed, visible))
    every = order.sort(1).values
    assert not torch.allclose(model.predict(patches, every), model.predict(changed, every), atol=1e-3)
    assert not torch.equal(model.error(x, order), model.error(model.pictures(changed), order)), (
        "but the loss reads them"
    )


def test_the_order_of_patches_has_no_meaning_and_their_places_have() -> None:
    torch.manual_seed(0)
    net = PatchTransformer((3, 4), 5, 7, d_model=16, n_layers=2, n_heads=2).eval()
    x, place = torch.randn(2, 6, 5), torch.stack([torch.randperm(12)[:6] for _ in range(2)])
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    mixed = torch.randperm(6)
    torch.testing.assert_close(net(x[:, mixed], place[:, mixed]), net(x, place)[:, mixed], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(net(x[:, mixed], place), net(x, place)[:, mixed], atol=1e-2), "without their places"
    model, (pictures, _) = small(), examples(SPECS["image"], 4)
    order = orders(model, 4)
    v = model.n_visible
    again = torch.cat([order[:, :v].flip(1), order[:, v:].flip(1)], 1)
    torch.testing.assert_close(model.error(pictures, again), model.error(pictures, order), rtol=1e-5, atol=1e-6)
    assert not torch.isclose(model.error(pictures, order.flip(1)), model.error(pictures, order), rtol=1e-3)


def test_masked_attention_is_an_encoder_without_the_hidden_patches() -> None:
    """`inpaint`, which masks attention, gives what `predict` gives, which removes patches."""
    model, (x, _) = small(), examples(SPECS["image"], 6)
    order = orders(model, 6)
    visible = order[:, : model.n_visible]
    hidden = torch.ones(6, model.n_patches, dtype=torch.bool).scatter(1, visible, False)
    mask = from_patches(hidden[..., None].expand(-1, -1, 4).float(), 2, 4, 4).bool()
    filled = model.inpaint(x, mask)
    with torch.no_grad():
        expected = model.pictures(model.predict(model.patches(x), visible))
    torch.testing.assert_close(filled[mask], expected[mask], rtol=1e-5, atol=1e-5)
    assert torch.equal(filled[~mask], x[~mask])
    assert torch.equal(filled, model.inpaint(torch.where(mask, torch.rand_like(x), x), mask))
    everything = model.inpaint(x, torch.ones(1, 1, 8, 8))
    assert torch.isfinite(everything).all()
    assert torch.equal(everything, everything[:1].expand_as(x)), "nothing is known, so that all pictures are equal"
    with pytest.raises(zoo.ZooError, match="mask="):
        model.inpaint(x, torch.ones(1, 1, 7, 8))


@pytest.mark.parametrize("ratio", [0.01, 0.3, 0.75, 0.99])
def test_the_share_of_hidden_patches_is_the_setting(ratio: float) -> None:
    model = small(mask_ratio=ratio)
    assert model.n_visible == min(max(round((1 - ratio) * 16), 1), 15)
    order = orders(model, 4000)
    seen = torch.zeros(4000, 16).scatter(1, order[:, : model.n_visible], 1.0)
    assert seen.sum(1).eq(model.n_visible).all()
    share = model.n_visible / 16
    error = (share * (1 - share) / 4000) ** 0.5
    assert (seen.mean(0) - share).abs().max() < 4 * error, "each place is hidden equally often"


def test_patches_that_do_not_fit_are_refused() -> None:
    assert [default_patch(*size) for size in ((8, 8), (28, 28), (32, 32), (64, 64), (10, 14), (7, 9), (2, 2))] == [
        2, 4, 4, 8, 2, 1, 1
    ]  # fmt: skip
    with pytest.raises(zoo.ZooError, match="patch=3: does not cut"):
        small(patch=3)
    with pytest.raises(zoo.ZooError, match="patch=8: does not cut"):
        small(patch=8)
    with pytest.raises(zoo.ZooError, match="one value"):
        small(patch=1, normalize_patches=True)
    assert "inpaint" in small().abilities
    assert "inpaint" not in small(normalize_patches=True).abilities


def gaussian() -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of pictures of 2x2 pixels."""
    torch.manual_seed(3)
    root = torch.randn(4, 4) * torch.tensor([1.0, 0.7, 0.4, 0.2])
    return torch.tensor([0.5, 0.45, 0.55, 0.5]), root @ root.T * 0.05


def test_the_prediction_becomes_the_conditional_mean_of_a_gaussian() -> None:
    """E[h | v] = m_h + C_hv C_vv^-1 (v - m_v); the covariance of other pixels is the negative control."""
    mean, cov = gaussian()
    normal = torch.distributions.MultivariateNormal(mean, cov)
    model = MAE(zoo.DataSpec(Image(1, 2, 2), name="normal"), patch=1, mask_ratio=0.5, **SMALL | {"n_layers": 1})
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.02, 300)
    torch.manual_seed(0)
    for _ in range(300):
        optimizer.zero_grad()
        model.loss(Batch(normal.sample((256,)).view(-1, 1, 2, 2), None))["loss"].backward()
        optimizer.step()
        schedule.step()
    x = normal.sample((4000,))
    left = {"model": 0.0, "shuffled": 0.0, "mean": 0.0}  # squared distance from the best prediction
    for v in ([0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]):
        h = [i for i in range(4) if i not in v]

        def conditional(cov: torch.Tensor, v: list[int] = v, h: list[int] = h) -> torch.Tensor:
            return mean[h] + (x[:, v] - mean[v]) @ torch.linalg.solve(cov[v][:, v], cov[v][:, h])

        best, order = conditional(cov), torch.tensor([1, 0, 3, 2])
        with torch.no_grad():
            found = model.predict(model.patches(x.view(-1, 1, 2, 2)), torch.tensor([v]).expand(len(x), -1))
        left["model"] += float(((found[:, h, 0] + 1) / 2 - best).square().mean())
        left["shuffled"] += float((conditional(cov[order][:, order]) - best).square().mean())
        left["mean"] += float((mean[h] - best).square().mean())
    assert left["model"] < 0.1 * left["mean"]
    assert left["shuffled"] > 0.3 * left["mean"]


def test_odd_heads_are_refused():
    with pytest.raises(zoo.ZooError, match=r"model\.d_model=12: must divide into 4 heads of an even width"):
        zoo.create_model("mae", data="digits", d_model=12)
    assert PatchTransformer((2, 2), 3, d_model=8, n_layers=1, n_heads=4)(torch.rand(2, 4, 3)).isfinite().all()
