"""Feature extractors: frozen functions from samples to vectors, in which sample metrics are computed.

The name of the features is part of the name of a metric (`fd_digits@5k_test`): values in different features are not
comparable. `Features` is not an nn.Module, so that an attribute of a LightningModule is not trained, averaged or saved.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from zoo.core.cache import cache_root
from zoo.core.errors import ZooError
from zoo.core.registry import unknown_name_message
from zoo.core.space import PixelSpace
from zoo.core.spaces import Audio, Image, Label, Tokens
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule
from zoo.evaluation.features import classifier
from zoo.metrics.frechet import MAX_DIM, random_projection

Kind = Literal["auto", "classifier", "pixels", "inception", "model"]

SHIPPED = Path(__file__).parent / "weights"
LOW_ACCURACY = 0.7  # of a classifier; below it, a warning
STACKED = {"stacked_mnist": "mnist"}  # data whose channels are images of other data


class Features:
    """Samples (N, *shape) -> vectors (N, dim) float32, in batches and without gradients.

    Attributes:
        name: part of the names of metrics.
        dim: length of a vector.
        sha256: hash of the weights file; empty without one.
        shape: shape of a sample.
        n_classes: number of classes of `classify`; 0 if it is not supported.
        facts: recorded with the metrics: the accuracy of a classifier on validation data.
    """

    batch_size = 500
    n_classes = 0

    def __init__(self, name: str, dim: int, shape: tuple[int, ...], sha256: str = "") -> None:
        self.name, self.dim, self.shape, self.sha256 = name, dim, shape, sha256
        self.facts: dict[str, Any] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """Samples (N, *shape), images in [0, 1], on any device -> (N, dim) float32, on the same."""
        return self._batched(self.extract, x)

    def classify(self, x: Tensor) -> Tensor:
        """Samples (N, *shape) -> most likely classes, int64 (N,).

        Raises:
            ZooError: not the features of a classifier.
        """
        if not self.n_classes:
            raise ZooError(f"features={self.name}: cannot classify. Use features=classifier.")
        return self._batched(self.label, x)

    def extract(self, x: Tensor) -> Tensor:
        """One batch (B, *shape) -> (B, dim)."""
        raise NotImplementedError

    def label(self, x: Tensor) -> Tensor:
        """One batch (B, *shape) -> (B,)."""
        raise NotImplementedError

    def to(self, device: str | torch.device) -> "Features":
        """Move to a device."""
        return self

    @torch.no_grad()
    def _batched(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != tuple(self.shape):
            want, have = ("x".join(map(str, shape)) for shape in (self.shape, x.shape[1:]))
            raise ZooError(f"features={self.name}: for samples {want}, but these are {have}. Use other features.")
        return torch.cat([function(part).to(x.device) for part in x.float().split(self.batch_size)])


class PixelFeatures(Features):
    """The samples, projected to 64 dimensions if larger (`zoo.metrics.frechet.random_projection`)."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__("pixels", min(spec.size, MAX_DIM), spec.shape)

    def extract(self, x: Tensor) -> Tensor:
        """Flatten and project."""
        return random_projection(x)


class ClassifierFeatures(Features):
    """The last hidden layer of a frozen classifier (see `zoo.evaluation.features.classifier`).

    Args:
        path: weights file, next to its card.
    """

    def __init__(self, path: Path) -> None:
        self.network, self.card = classifier.read(path)
        spec = DataSpec.from_dict(self.card["spec"])
        super().__init__(self.card["name"], self.card["dim"], spec.shape, self.card["sha256"])
        self.n_classes = spec.n_classes
        self.facts = {key: self.card[key] for key in ("accuracy", "motion_accuracy", "held_out") if key in self.card}

    def to(self, device: str | torch.device) -> "ClassifierFeatures":
        """Move the network."""
        self.network.to(device)
        return self

    def extract(self, x: Tensor) -> Tensor:
        """Features after the rectifier."""
        return self.network.features(self._near(x))

    def label(self, x: Tensor) -> Tensor:
        """Class of the largest logit."""
        return self.network(self._near(x)).argmax(1)

    def _near(self, x: Tensor) -> Tensor:
        return x.to(self.network.head.weight.device)


class StackedFeatures(Features):
    """Concatenated features of the channels of an image.

    The class is 100a + 10b + c for channels of classes a, b and c: the 1,000 modes of stacked MNIST (Metz et al. 2016,
    arXiv:1611.02163).

    Args:
        name: name of the data.
        single: features of one channel.
        channels: number of channels.
    """

    def __init__(self, name: str, single: Features, channels: int) -> None:
        super().__init__(name, channels * single.dim, (channels, *single.shape[1:]), single.sha256)
        self.single, self.channels, self.n_classes = single, channels, single.n_classes**channels
        self.facts = single.facts

    def to(self, device: str | torch.device) -> "StackedFeatures":
        """Move the network."""
        self.single.to(device)
        return self

    def extract(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C dim)."""
        return self.single.extract(x.flatten(0, 1)[:, None]).unflatten(0, (-1, self.channels)).flatten(1)

    def label(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B,)."""
        digits = self.single.label(x.flatten(0, 1)[:, None]).unflatten(0, (-1, self.channels))  # (B, C)
        powers = self.single.n_classes ** torch.arange(self.channels - 1, -1, -1, device=digits.device)
        return (digits * powers).sum(1)


def features_for(
    spec: DataSpec,
    kind: str = "auto",
    weights: str | Path | None = None,
    *,
    data: DataModule | None = None,
    say: Callable[[str], None] = print,
) -> Features:
    """Load the features for samples of some data.

    Args:
        spec: of the data.
        kind: "classifier" (built-in, cached or trained now), "pixels", "inception" (from a weights file), or "model"
            (of a run that embeds data). In "auto" images and sounds with labels have a classifier, and videos have the
            built-in one. Other data have pixels.
        weights: weights file: of `zoo features --out` for a classifier, of torch-fidelity for Inception. A run for
            "model".
        data: for a classifier that must be trained.
        say: receives a message when a classifier is trained, which may take minutes.

    Raises:
        ZooError: unknown kind, or one that does not fit the data or lacks its weights.
    """
    if kind not in get_args(Kind):
        raise ZooError(f"{unknown_name_message('features', kind, list(get_args(Kind)))}.")
    if isinstance(spec.x, Tokens):
        raise ZooError(f"features={kind}: for images and vectors, but {spec} is tokens. Measure its likelihood.")
    if kind == "auto":
        here = isinstance(spec.x, (Image, Audio))
        trained = bool(spec.n_classes or weights) if here else shipped_for(spec) is not None
        kind = "classifier" if trained else "pixels"
    if weights is not None and kind == "pixels":
        raise ZooError(f"features=pixels: does not have weights. Remove {weights}, or choose other features.")
    if kind == "pixels":
        return PixelFeatures(spec)
    if kind == "model":
        from zoo.evaluation.features.model import ModelFeatures

        return ModelFeatures(spec, weights)
    if not isinstance(spec.x, Image if kind == "inception" else (PixelSpace, Audio)):
        raise ZooError(f"features={kind}: for images, but {spec} is a {spec.x.registered_name}. Use features=pixels.")
    if kind == "inception":
        from zoo.evaluation.features.inception import Inception

        return Inception(spec, weights)
    if spec.name in STACKED:
        of_one = DataSpec(Image(1, *spec.shape[1:]), Label(10), name=STACKED[spec.name])
        return StackedFeatures(spec.name, features_for(of_one, kind, weights), spec.shape[0])
    found = ClassifierFeatures(_classifier(spec, weights, data, say))
    if found.shape != spec.shape:
        raise ZooError(
            f"weights={weights}: trained on {DataSpec.from_dict(found.card['spec'])}, not on {spec}. Use others."
        )
    accuracy = found.facts.get("accuracy", 1.0)
    if accuracy < LOW_ACCURACY:
        say(
            f"features={found.name}: the classifier names only {accuracy:.1%} of the validation data correctly. "
            f"Its metrics are unreliable. Compare with --features pixels."
        )
    return found


def _classifier(
    spec: DataSpec, weights: str | Path | None, data: DataModule | None, say: Callable[[str], None]
) -> Path:
    """Weights file: the given, built-in, cached or newly trained one."""
    if weights is not None:
        return Path(weights)
    if shipped := shipped_for(spec):
        return shipped
    if not spec.n_classes:
        raise ZooError(f"features=classifier: {spec} does not have labels. Use features=pixels.")
    if data is None:
        raise ZooError(f"features=classifier: none for {spec}. Train one with `zoo features data={spec.name}`.")
    data.setup()
    path = cached(data)
    if not (path.is_file() and classifier.card_of(path).is_file()):
        say(f"training a classifier of {spec} once, to measure samples in its features (kept as {path})")
        make(data, path)
    return path


def shipped_for(spec: DataSpec) -> Path | None:
    """The built-in classifier for data of this name and shape, if any; the number of grey levels may differ."""
    path = SHIPPED / f"{spec.name}.safetensors"
    return path if path.is_file() and _shape(path) == spec.shape else None


@lru_cache
def _shape(path: Path) -> tuple[int, ...]:
    return DataSpec.from_dict(classifier.read(path)[1]["spec"]).shape


def cached(data: DataModule) -> Path:
    """Path of the classifier of loaded data in the cache (`$ZOO_CACHE`, else `~/.cache/zoo`)."""
    known = classifier.key(
        data.spec, classifier.fingerprint(data), classifier.recipe_for(data.spec, len(data.train[0]))
    )
    return cache_root() / "features" / f"{data.spec.name}-{known}.safetensors"


def make(data: DataModule, path: Path) -> dict[str, Any]:
    """Train a classifier, write it with its card, and return the card."""
    recipe = classifier.recipe_for(data.spec, len(data.train[0]))
    with torch.enable_grad():  # evaluation runs without
        network = classifier.train(data, recipe)
    facts = {"accuracy": classifier.accuracy(network, data), "held_out": len(data.val[0])}
    if network.motion is not None:
        facts["motion_accuracy"] = classifier.motion_accuracy(network, data)
    return classifier.write(path, network, data.spec, recipe, **facts, data=classifier.fingerprint(data))
