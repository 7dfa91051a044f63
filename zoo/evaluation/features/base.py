"""What sample metrics are measured in: frozen functions from samples to vectors.

The name of the features belongs into the name of every metric measured in them (`fd_digits@5k_test`): values in
different features have nothing to do with one another. A `Features` is no module, on purpose: as an attribute of a
LightningModule it is neither trained, averaged nor saved with it, and nothing puts it into train mode.
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
from zoo.core.spaces import Image, Label, Tokens
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule
from zoo.evaluation.features import classifier
from zoo.metrics.frechet import MAX_DIM, random_projection

Kind = Literal["auto", "classifier", "pixels", "inception"]

SHIPPED = Path(__file__).parent / "weights"
STACKED = {"stacked_mnist": "mnist"}  # images whose channels are images of another data set, each with its classes


class Features:
    """Samples (N, *shape) -> vectors (N, dim) float32, a batch at a time and without gradients.

    Attributes:
        name: stands in the names of metrics.
        dim: length of a vector.
        sha256: of the weights file; empty where there is none.
        shape: of one sample.
        n_classes: that `classify` tells apart; 0 where it cannot.
    """

    batch_size = 500
    n_classes = 0

    def __init__(self, name: str, dim: int, shape: tuple[int, ...], sha256: str = "") -> None:
        self.name, self.dim, self.shape, self.sha256 = name, dim, shape, sha256

    def __call__(self, x: Tensor) -> Tensor:
        """Samples (N, *shape), images in [0, 1], on any device -> (N, dim) float32, on the same."""
        return self._batched(self.extract, x)

    def classify(self, x: Tensor) -> Tensor:
        """Samples (N, *shape) -> the likeliest class of each, int64 (N,).

        Raises:
            ZooError: the features belong to no classifier.
        """
        if not self.n_classes:
            raise ZooError(f"features {self.name} cannot classify: take those of a classifier (features=classifier).")
        return self._batched(self.label, x)

    def extract(self, x: Tensor) -> Tensor:
        """One batch (B, *shape) -> (B, dim)."""
        raise NotImplementedError

    def label(self, x: Tensor) -> Tensor:
        """One batch (B, *shape) -> (B,)."""
        raise NotImplementedError

    def to(self, device: str | torch.device) -> "Features":
        """Compute there from now on."""
        return self

    @torch.no_grad()
    def _batched(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != tuple(self.shape):
            want, have = ("x".join(map(str, shape)) for shape in (self.shape, x.shape[1:]))
            raise ZooError(f"features {self.name} are those of samples {want}, but these are {have}.")
        return torch.cat([function(part).to(x.device) for part in x.float().split(self.batch_size)])


class PixelFeatures(Features):
    """The samples themselves; more than 64 numbers in 64 fixed random directions (`zoo.metrics.frechet.random_projection`)."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__("pixels", min(spec.size, MAX_DIM), spec.shape)

    def extract(self, x: Tensor) -> Tensor:
        """Flat, projected if long."""
        return random_projection(x)


class ClassifierFeatures(Features):
    """The last hidden layer of a frozen classifier (see `zoo.evaluation.features.classifier`).

    Args:
        path: its weights, with the card beside them.
    """

    def __init__(self, path: Path) -> None:
        self.network, self.card = classifier.read(path)
        spec = DataSpec.from_dict(self.card["spec"])
        super().__init__(self.card["name"], self.card["dim"], spec.shape, self.card["sha256"])
        self.n_classes = spec.n_classes

    def to(self, device: str | torch.device) -> "ClassifierFeatures":
        """Move the network."""
        self.network.to(device)
        return self

    def extract(self, x: Tensor) -> Tensor:
        """Rectified features."""
        return self.network.features(self._near(x))

    def label(self, x: Tensor) -> Tensor:
        """The largest logit."""
        return self.network(self._near(x)).argmax(1)

    def _near(self, x: Tensor) -> Tensor:
        return x.to(self.network.head.weight.device)


class StackedFeatures(Features):
    """Images whose channels are images by themselves: the features of all channels, one after the other.

    Classes are numbers whose digits are the classes of the channels, the first being the highest: of three digits
    100a + 10b + c, the 1,000 modes of stacked MNIST (Metz et al. 2016, 1611.02163).

    Args:
        name: of the data.
        single: features of one channel.
        channels: how many.
    """

    def __init__(self, name: str, single: Features, channels: int) -> None:
        super().__init__(name, channels * single.dim, (channels, *single.shape[1:]), single.sha256)
        self.single, self.channels, self.n_classes = single, channels, single.n_classes**channels

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
    """The features to measure samples of some data in.

    Args:
        spec: of the data.
        kind: "classifier" is a small one of the data itself: shipped with the zoo (digits, MNIST, binarised or
            not), else from the cache, else trained now. "pixels" needs nothing. "inception" are Inception's, from
            a file of weights. "auto" is a classifier for images with labels, else pixels.
        weights: a file of weights: of `zoo features --out` for a classifier, of torch-fidelity for Inception.
        data: the data itself, for a classifier that may have to be trained.
        say: told when a classifier is trained, which may take minutes.

    Raises:
        ZooError: no such kind, or one that does not fit the data or lacks its weights.
    """
    if kind not in get_args(Kind):
        raise ZooError(f"{unknown_name_message('features', kind, list(get_args(Kind)))}.")
    if isinstance(spec.x, Tokens):
        raise ZooError(f"features are of images and vectors, but {spec} is tokens: measure its likelihood instead.")
    if kind == "auto":
        kind = "classifier" if isinstance(spec.x, Image) and (spec.n_classes or weights) else "pixels"
    if weights is not None and kind == "pixels":
        raise ZooError(f"features=pixels takes no weights: leave out {weights}, or choose the features that it is of.")
    if kind == "pixels":
        return PixelFeatures(spec)
    if not isinstance(spec.x, Image):
        raise ZooError(
            f"features={kind} are of images, but {spec} is a {spec.x.registered_name}: take features=pixels."
        )
    if kind == "inception":
        from zoo.evaluation.features.inception import Inception

        return Inception(spec, weights)
    if spec.name in STACKED:
        of_one = DataSpec(Image(1, *spec.shape[1:]), Label(10), name=STACKED[spec.name])
        return StackedFeatures(spec.name, features_for(of_one, kind, weights), spec.shape[0])
    found = ClassifierFeatures(_classifier(spec, weights, data, say))
    if found.shape != spec.shape:
        raise ZooError(
            f"the classifier {weights} is of {DataSpec.from_dict(found.card['spec'])}, but the data is {spec}."
        )
    return found


def _classifier(
    spec: DataSpec, weights: str | Path | None, data: DataModule | None, say: Callable[[str], None]
) -> Path:
    """The weights file: the one named, shipped, cached or made now."""
    if weights is not None:
        return Path(weights)
    if shipped := shipped_for(spec):
        return shipped
    if not spec.n_classes:
        raise ZooError(f"{spec} has no labels to train a classifier on: take features=pixels.")
    if data is None:
        raise ZooError(f"no classifier of {spec} comes with the zoo: train one with `zoo features data={spec.name}`.")
    data.setup()
    path = cached(data)
    if not (path.is_file() and classifier.card_of(path).is_file()):
        say(f"training a classifier of {spec} once, to measure samples in its features (kept as {path})")
        make(data, path)
    return path


def shipped_for(spec: DataSpec) -> Path | None:
    """The classifier that comes with the zoo, where it fits: by name and shape, however many grey levels."""
    path = SHIPPED / f"{spec.name}.safetensors"
    return path if path.is_file() and _shape(path) == spec.shape else None


@lru_cache
def _shape(path: Path) -> tuple[int, ...]:
    return DataSpec.from_dict(classifier.read(path)[1]["spec"]).shape


def cached(data: DataModule) -> Path:
    """Where the classifier of data that is loaded is kept: `$ZOO_CACHE`, else `~/.cache/zoo`, in `features/`."""
    known = classifier.key(
        data.spec, classifier.fingerprint(data), classifier.recipe_for(data.spec, len(data.train[0]))
    )
    return cache_root() / "features" / f"{data.spec.name}-{known}.safetensors"


def make(data: DataModule, path: Path) -> dict[str, Any]:
    """Train a classifier of some data, write it with its card, and return the card."""
    recipe = classifier.recipe_for(data.spec, len(data.train[0]))
    with torch.enable_grad():  # evaluation runs without
        network = classifier.train(data, recipe)
    facts = {"accuracy": classifier.accuracy(network, data), "held_out": len(data.val[0])}
    return classifier.write(path, network, data.spec, recipe, **facts, data=classifier.fingerprint(data))
