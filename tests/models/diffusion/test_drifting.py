"""The model `drifting`: a short training spreads samples over the data, and the batch's classes are kept apart."""

import torch

import zoo
from tests.contracts.specs import SPECS, examples
from zoo.core.spaces import Label, Vector
from zoo.data.batch import Batch
from zoo.models.diffusion.drifting import Drifting

NETWORK = {"name": "mlp", "width": 32, "depth": 2}


def test_a_short_training_finds_both_clusters_of_each_class() -> None:
    torch.manual_seed(0)
    spec = zoo.DataSpec(Vector(2), Label(2), name="clusters")
    model = Drifting(spec, latent_dim=4, generator=NETWORK, generated=0.5)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)

    def draw(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        y, side = torch.randint(2, (2, n))
        return torch.stack([2 * y - 1.0, 2 * side - 1.0], 1) + 0.1 * torch.randn(n, 2), y

    def spread(label: int) -> tuple[float, float]:
        """Share of samples near the class's clusters, and share of the upper cluster."""
        x = model.sample(500, condition=torch.full((500,), label), generator=torch.Generator().manual_seed(0))
        near = ((x[:, 0] - (2 * label - 1)).abs() < 0.5) & ((x[:, 1].abs() - 1).abs() < 0.5)
        return near.float().mean().item(), (x[:, 1] > 0).float().mean().item()

    assert spread(0)[0] < 0.5, "the control: before"
    for _ in range(400):
        optimizer.zero_grad()
        x, y = draw(96)
        model.loss(Batch(x, y))["loss"].backward()
        optimizer.step()
    for label in (0, 1):
        near, upper = spread(label)
        assert near > 0.85
        assert 0.3 < upper < 0.7, "no mode is lost"


def test_the_number_of_generated_samples_and_of_classes() -> None:
    model = Drifting(SPECS["image"], generator=NETWORK, generated=0.5)
    assert model.conditional
    batch, seen = examples(SPECS["image"], 12), []
    model.generator.register_forward_hook(lambda _, given, out: seen.append((given[1].tolist(), len(out))))
    assert model.loss(batch)["loss"].isfinite()
    assert seen == [(batch.y[[0, 0, 1, 1, 2, 2]].tolist(), 6)]
    alone = Drifting(SPECS["image"], generator=NETWORK, conditional=False)
    assert alone.loss(batch)["loss"].isfinite()
    assert alone.monitor == "val/fd"
