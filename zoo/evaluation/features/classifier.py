"""The small classifiers whose features sample metrics are measured in: how they are trained, and their files.

Nothing that ships Inception's weights can be had without a network, and what it sees in 8x8 digits would mean
little. A classifier of the data itself is usable: its Frechet distance grows with noise, blur and missing classes
(see `zoo.evaluation.features.calibration`). It has limits that every number measured in it inherits: it was trained on class
labels, so it sees what tells classes apart and may miss the rest; it was trained on the training split, so
training images look a little sharper to it than held-out ones; and distances change by tens of percent from one
trained network to the next. So one frozen file is used for everything, and its SHA-256 is written beside the numbers.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core import registry
from zoo.core.errors import ZooError
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule
from zoo.data.loader import ShuffledSampler, make_generator
from zoo.io.atomic import write_bytes, write_text

DIM = 64  # features: few, as the Frechet distance of few samples is biased by an amount that grows with them
PARAMETERS = 100_000  # largest network for each input channel: 400 kB as float32
N_FINGERPRINT = 2_000


@dataclass(frozen=True)
class ClassifierConfig:
    """Everything that decides what training gives, but the data: Adam with decoupled weight decay, one cycle.

    The learning rate rises and falls once (Smith & Topin 2017, 1708.07120); images are moved by at most `shift`
    pixels in each direction.
    """

    width: int
    steps: int
    shift: int = 1
    dim: int = DIM
    batch_size: int = 128
    lr: float = 3e-3
    weight_decay: float = 0.05
    seed: int = 0


def recipe_for(spec: DataSpec, n: int) -> ClassifierConfig:
    """For n training images: the widest network within `PARAMETERS`, and 8 epochs, but 1,000 to 4,000 steps."""
    channels, height, width = spec.shape
    widths = [w for w in (8, 16) if _parameters(spec, w) <= PARAMETERS * channels]
    recipe = ClassifierConfig(width=max(widths, default=8), steps=0, shift=max(1, round(min(height, width) / 32)))
    return replace(recipe, steps=min(max(8 * n // recipe.batch_size, 1_000), 4_000))


def _parameters(spec: DataSpec, width: int) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in Classifier(spec, width).parameters())


class Classifier(nn.Module):
    """Images (B, C, H, W) -> logits (B, K), by way of rectified features (B, dim)."""

    def __init__(self, spec: DataSpec, width: int, dim: int = DIM) -> None:
        super().__init__()
        self.encoder = registry.build("encoder", {"name": "conv", "width": width}, spec.shape, dim)
        self.head = nn.Linear(dim, spec.n_classes)

    def features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim), not negative."""
        return F.relu(self.encoder(x))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K)."""
        return self.head(self.features(x))


def train(data: DataModule, recipe: ClassifierConfig) -> Classifier:
    """Train on the training split alone; the same bits for the same recipe, data, machine and number of threads.

    Torch's global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = Classifier(data.spec, recipe.width, recipe.dim)
    optimizer = torch.optim.AdamW(network.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=recipe.steps)
    for x, y in _batches(data, recipe):
        loss = F.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def _batches(data: DataModule, recipe: ClassifierConfig) -> Iterator[tuple[Tensor, Tensor]]:
    n = len(data.train[0])
    size = min(recipe.batch_size, n)
    order, per_epoch = ShuffledSampler(n, recipe.seed), n // size
    for step in range(recipe.steps):
        epoch, batch = divmod(step, per_epoch)
        if batch == 0:
            indices = order.epoch(epoch).split(size)
        generator = make_generator(recipe.seed, epoch, batch)
        x, y = data.fetch(data.train, indices[batch], generator, train=False)
        yield shifted(x, recipe.shift, generator), y


def shifted(x: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W), each moved by up to `most` pixels in each direction, the border filled with zeros."""
    b, _, height, width = x.shape
    padded = F.pad(x, [most] * 4).permute(0, 2, 3, 1)  # (B, H + 2m, W + 2m, C)
    start = torch.randint(2 * most + 1, (2, b, 1), generator=generator)
    rows, columns = start[0] + torch.arange(height), start[1] + torch.arange(width)  # (B, H), (B, W)
    moved = padded[torch.arange(b)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2).contiguous()


@torch.no_grad()
def accuracy(network: Classifier, data: DataModule) -> float:
    """Share of the validation split that is classified rightly; the test split is not touched."""
    right = [(network(x).argmax(1) == y).sum() for x, y in data.val_dataloader()]
    return int(torch.stack(right).sum()) / len(data.val[0])


def fingerprint(data: DataModule) -> str:
    """SHA-256 of what the training split holds: every label, and up to `N_FINGERPRINT` evenly spaced samples."""
    n, digest = len(data.train[0]), hashlib.sha256()
    digest.update(data.train[1].contiguous().numpy().tobytes())
    for rows in torch.arange(0, n, max(n // N_FINGERPRINT, 1)).split(500):
        digest.update(data.fetch(data.train, rows, make_generator(0), train=False)[0].contiguous().numpy().tobytes())
    return digest.hexdigest()


def key(spec: DataSpec, data: str, recipe: ClassifierConfig) -> str:
    """What a cached file is named after: everything that decides its contents, `data` being the fingerprint."""
    known = {**spec.to_dict(), "levels": 0}  # binarised images are served by the network of the grey ones
    return hashlib.sha256(json.dumps([known, data, asdict(recipe)], sort_keys=True).encode()).hexdigest()[:16]


# -- files: weights as safetensors, and a card in JSON beside them ---------------------------------------------------


def write(path: Path, network: Classifier, spec: DataSpec, recipe: ClassifierConfig, **facts: Any) -> dict[str, Any]:
    """Write weights and card, each whole or not at all, and return the card."""
    content = save({name: t.contiguous() for name, t in sorted(network.state_dict().items())})
    card = {
        "name": spec.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "dim": recipe.dim,
        "spec": spec.to_dict(),
        "recipe": asdict(recipe),
        "torch": torch.__version__,
        **facts,
    }
    write_bytes(path, content)
    write_card(path, card)
    return card


def write_card(path: Path, card: dict[str, Any]) -> None:
    """Write the card of a weights file."""
    write_text(card_of(path), json.dumps(card, indent=1) + "\n")


def card_of(path: Path) -> Path:
    """Where the card of a weights file lies."""
    return path.with_suffix(".json")


def read(path: Path) -> tuple[Classifier, dict[str, Any]]:
    """A frozen classifier and its card.

    Raises:
        ZooError: a file is missing or damaged, or the card belongs to other weights.
    """
    again = "delete it, and train it again with `zoo features`"
    try:
        content, card = path.read_bytes(), json.loads(card_of(path).read_text(encoding="utf-8"))
        if hashlib.sha256(content).hexdigest() != card["sha256"]:
            raise ZooError(f"{path} is not what its card {card_of(path).name} describes by its SHA-256: {again}.")
        network = Classifier(DataSpec.from_dict(card["spec"]), card["recipe"]["width"], card["recipe"]["dim"])
        network.load_state_dict(load(content))
    except FileNotFoundError as error:
        raise ZooError(
            f"there is no feature network at {path} ({Path(error.filename).name} is missing): "
            f"train one with `zoo features data=NAME --out {path.with_suffix('.safetensors').name}`."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ZooError(f"the feature network {path} cannot be read ({reason}): {again}.") from error
    return network.eval().requires_grad_(False), card
