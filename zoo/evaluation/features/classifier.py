"""Small classifiers whose features sample metrics use: training and files.

Inception's weights are not available offline, and it is not meaningful for small digits. The Frechet distance in
features of a classifier of the data grows with noise, blur and missing classes (`zoo.evaluation.features.calibration`).

Its limits apply to all metrics in these features. It was trained on class labels, so other properties may have little
effect. Training images look slightly better than held-out ones. Distances differ by tens of percent between trained
networks: a single frozen file is used, and its SHA-256 is recorded.
"""

import hashlib
import json
import math
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
from zoo.core.spaces import Audio
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule
from zoo.data.loader import ShuffledSampler, make_generator
from zoo.io.atomic import write_bytes, write_text
from zoo.nn.blocks.spectral import log_mel

DIM = 64  # features: few, as the Frechet distance of few samples is biased by an amount that grows with them
PARAMETERS = 100_000  # largest network for each input channel: 400 kB as float32
N_FINGERPRINT = 2_000
BANDS = 40  # of the mel scale, for sounds
WINDOW = 0.032  # seconds of a spectrum at most, which is a power of two of samples


@dataclass(frozen=True)
class ClassifierConfig:
    """Hyperparameters of the training: Adam with decoupled weight decay, one cycle.

    The learning rate rises and falls once (Smith & Topin 2017, 1708.07120). Images are moved by at most `shift` pixels
    in each direction, and sounds by as many samples.
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
    """Choose hyperparameters for n samples: the widest network within `PARAMETERS`; 8 epochs, 1,000 to 4,000 steps.

    Sounds have 500 steps at least.
    """
    height, width = spec.shape[-2:]
    channels = spec.shape[0] if len(spec.shape) == 3 else 1
    widths = [w for w in (8, 16) if _parameters(spec, w) <= PARAMETERS * channels]
    shift = width // 16 if isinstance(spec.x, Audio) else round(min(height, width) / 32)
    recipe = ClassifierConfig(width=max(widths, default=8), steps=0, shift=max(1, shift))
    least = 500 if isinstance(spec.x, Audio) else 1_000
    return replace(recipe, steps=min(max(8 * n // recipe.batch_size, least), 4_000))


def _parameters(spec: DataSpec, width: int) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in Classifier(spec, width).parameters())


class Classifier(nn.Module):
    """Images (B, C, H, W), videos (B, F, C, H, W) or sounds (B, C, N) -> logits (B, K), through features (B, dim).

    Sounds are read as images: logarithms of power in bands of the mel scale, (B, C, bands, frames).

    Args:
        spec: of the data.
        width: of the encoder.
        dim: number of features.
        motions: kinds of motion of videos, which `motion` predicts from the same features; 0 for none.
    """

    def __init__(self, spec: DataSpec, width: int, dim: int = DIM, motions: int = 0) -> None:
        super().__init__()
        self.space, shape = spec.x, spec.shape
        if isinstance(spec.x, Audio):
            with torch.device("meta"):
                shape = tuple(as_image(torch.empty(1, *shape), spec.x).shape[1:])
        name = "frames" if len(shape) == 4 else "conv"
        self.encoder = registry.build("encoder", {"name": name, "width": width}, shape, dim)
        self.head = nn.Linear(dim, spec.n_classes)
        self.motion = nn.Linear(dim, motions) if motions else None

    def features(self, x: Tensor) -> Tensor:
        """(B, *shape) -> (B, dim), not negative."""
        return F.relu(self.encoder(as_image(x, self.space) if isinstance(self.space, Audio) else x))

    def forward(self, x: Tensor) -> Tensor:
        """(B, *shape) -> (B, K)."""
        return self.head(self.features(x))


def as_image(x: Tensor, space: Audio) -> Tensor:
    """Sounds (B, C, N) -> logarithms of power in bands of the mel scale, shifted and scaled, (B, C, BANDS, T).

    Args:
        x: sounds in [-1, 1].
        space: of the sounds.
    """
    n_fft = 2 ** int(math.log2(min(WINDOW * space.sample_rate, space.samples)))
    return (log_mel(x, space.sample_rate, n_fft, n_fft // 2, BANDS) + 9) / 5


def motion_labels(data: DataModule, x: Tensor) -> tuple[Tensor, int]:
    """Kinds of motion of stored videos (N, ...): known factors other than the class, as one number; and their count."""
    if len(data.spec.shape) != 4 or len(data.factor_names) < 2:
        return torch.zeros(len(x), dtype=torch.int64), 0
    known = data.factors(data.train[0])[:, 1:]
    sizes = [int(n) + 1 for n in known.max(0).values]
    labels, count = torch.zeros(len(x), dtype=torch.int64), 1
    for column, size in zip(data.factors(x)[:, 1:].unbind(1), sizes, strict=True):
        labels, count = labels * size + column, count * size
    return labels, count


def train(data: DataModule, recipe: ClassifierConfig) -> Classifier:
    """Train on the training split; deterministic for a recipe, data, machine and number of threads.

    Torch's global random state stays unchanged.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        labels, motions = motion_labels(data, data.train[0])
        network = Classifier(data.spec, recipe.width, recipe.dim, motions)
    optimizer = torch.optim.AdamW(network.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=recipe.steps)
    for x, y, rows in _batches(data, recipe):
        features = network.features(x)
        loss = F.cross_entropy(network.head(features), y)
        if network.motion is not None:
            loss = loss + F.cross_entropy(network.motion(features), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def _batches(data: DataModule, recipe: ClassifierConfig) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    n = len(data.train[0])
    size = min(recipe.batch_size, n)
    order, per_epoch = ShuffledSampler(n, recipe.seed), n // size
    for step in range(recipe.steps):
        epoch, batch = divmod(step, per_epoch)
        if batch == 0:
            indices = order.epoch(epoch).split(size)
        generator = make_generator(recipe.seed, epoch, batch)
        x, y = data.fetch(data.train, indices[batch], generator, train=False)
        if isinstance(data.spec.x, Audio):
            moved = delayed(x, recipe.shift, generator)
        else:
            moved = shifted(x.flatten(1, -3), recipe.shift, generator).view_as(x)  # all frames alike
        yield moved, y, indices[batch]


def shifted(x: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Shift images (B, C, H, W) by up to `most` pixels in each direction, with zero padding."""
    b, _, height, width = x.shape
    padded = F.pad(x, [most] * 4).permute(0, 2, 3, 1)  # (B, H + 2m, W + 2m, C)
    start = torch.randint(2 * most + 1, (2, b, 1), generator=generator)
    rows, columns = start[0] + torch.arange(height), start[1] + torch.arange(width)  # (B, H), (B, W)
    moved = padded[torch.arange(b)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2).contiguous()


def delayed(x: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Move sounds (B, C, N) by up to `most` samples, to later or earlier, with silence at the ends."""
    b, channels, n = x.shape
    start = torch.randint(2 * most + 1, (b, 1, 1), generator=generator)
    index = (start + torch.arange(n)).expand(-1, channels, -1)  # (B, C, N)
    return F.pad(x, (most, most)).gather(2, index)


@torch.no_grad()
def accuracy(network: Classifier, data: DataModule) -> float:
    """Accuracy on the validation split; the test split is not used."""
    right = [(network(x).argmax(1) == y).sum() for x, y in data.val_dataloader()]
    return int(torch.stack(right).sum()) / len(data.val[0])


@torch.no_grad()
def motion_accuracy(network: Classifier, data: DataModule) -> float:
    """Accuracy of the kind of motion on the validation split."""
    assert network.motion is not None
    labels, _ = motion_labels(data, data.val[0])
    right = 0
    for rows in torch.arange(len(labels)).split(500):
        x, _ = data.fetch(data.val, rows, make_generator(0), train=False)
        right += int((network.motion(network.features(x)).argmax(1) == labels[rows]).sum())
    return right / len(labels)


def fingerprint(data: DataModule) -> str:
    """SHA-256 of the training split: all labels, and up to `N_FINGERPRINT` evenly spaced samples."""
    n, digest = len(data.train[0]), hashlib.sha256()
    digest.update(data.train[1].contiguous().numpy().tobytes())
    for rows in torch.arange(0, n, max(n // N_FINGERPRINT, 1)).split(500):
        digest.update(data.fetch(data.train, rows, make_generator(0), train=False)[0].contiguous().numpy().tobytes())
    return digest.hexdigest()


def key(spec: DataSpec, data: str, recipe: ClassifierConfig) -> str:
    """Key of a cached file: a hash of spec, fingerprint of the data, and hyperparameters."""
    x: Any = spec.x
    if hasattr(x, "levels"):
        x = replace(x, levels=256)  # binarised images use the network of the grey ones
    known = replace(spec, x=x)
    return hashlib.sha256(json.dumps([known.to_dict(), data, asdict(recipe)], sort_keys=True).encode()).hexdigest()[:16]


# -- files: weights as safetensors, and a card in JSON beside them ---------------------------------------------------


def write(path: Path, network: Classifier, spec: DataSpec, recipe: ClassifierConfig, **facts: Any) -> dict[str, Any]:
    """Write weights and card atomically, and return the card."""
    content = save({name: t.contiguous() for name, t in sorted(network.state_dict().items())})
    card = {
        "name": spec.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "dim": recipe.dim,
        "spec": spec.to_dict(),
        "recipe": asdict(recipe),
        "torch": torch.__version__,
        **({} if network.motion is None else {"motions": network.motion.out_features}),
        **facts,
    }
    write_bytes(path, content)
    write_card(path, card)
    return card


def write_card(path: Path, card: dict[str, Any]) -> None:
    """Write the card of a weights file."""
    write_text(card_of(path), json.dumps(card, indent=1) + "\n")


def card_of(path: Path) -> Path:
    """Path of a weights file's card."""
    return path.with_suffix(".json")


def read(path: Path) -> tuple[Classifier, dict[str, Any]]:
    """Load a frozen classifier and its card.

    Raises:
        ZooError: a file is missing or damaged, or the card belongs to other weights.
    """
    again = "Delete it, and train it again with `zoo features`"
    try:
        content, card = path.read_bytes(), json.loads(card_of(path).read_text(encoding="utf-8"))
        if hashlib.sha256(content).hexdigest() != card["sha256"]:
            raise ZooError(f"{path} does not match the SHA-256 in {card_of(path).name}. {again}.")
        recipe, motions = card["recipe"], card.get("motions", 0)
        network = Classifier(DataSpec.from_dict(card["spec"]), recipe["width"], recipe["dim"], motions)
        network.load_state_dict(load(content))
    except FileNotFoundError as error:
        raise ZooError(
            f"there is no feature network at {path} ({Path(error.filename).name} is missing). "
            f"Train one with `zoo features data=NAME --out {path.with_suffix('.safetensors').name}`."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ZooError(f"the feature network {path} cannot be read ({reason}). {again}.") from None
    return network.eval().requires_grad_(False), card
