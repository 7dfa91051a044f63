"""What can be measured of a trained model: groups of metrics, each asking the model for what it needs.

A metric's name carries its protocol: `fd_digits@1437_test` is a Frechet distance in the features of the digit
classifier, of 1,437 samples against the test split. Its floor is what real data score in the samples' place.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.data.base import DataModule, Split
from zoo.data.loader import seeded
from zoo.metrics.diversity import vendi
from zoo.metrics.features import Features, features_for
from zoo.metrics.frechet import frechet, moments
from zoo.metrics.kernel import kernel_distance
from zoo.metrics.latent import active_units, aggregate_match, kl_per_dim
from zoo.metrics.manifold import prdc
from zoo.metrics.memorisation import memorisation
from zoo.metrics.modes import class_histogram_kl, points_on_modes
from zoo.metrics.reconstruction import reconstruction
from zoo.metrics.text import distinct, repetition, share_that_parses
from zoo.metrics.two_sample import two_sample_accuracy
from zoo.models.base import Encodes, GenerativeModel, HasBound, HasLogProb, HasPosterior, HasPrior, Writes

MOST = 10_000  # samples, and held-out data to compare with: pairs of them fit in memory
PROBED = 2_000  # samples in the memorisation probe, which goes through all training data
BATCH = 250
TEXTS, LENGTH = 64, 256  # texts written, and tokens in each at most

Better = Literal["lower", "higher", "floor"]  # "floor": the nearer to what real data score
Scores = dict[str, "Score"]


@dataclass(frozen=True)
class Score:
    """One number.

    Args:
        value: measured.
        better: what it should be like.
        floor: what real data get in the model's place.
        error: standard error, where the number is a mean.
        parts: what it is the sum of.
    """

    value: float
    better: Better
    floor: float | None = None
    error: float | None = None
    parts: tuple[float, ...] = ()


@dataclass(frozen=True)
class Protocol:
    """How to evaluate.

    Args:
        split: "test", or "val" while choices are still being made.
        samples: how many to draw; None is as many as there are training data, at most `MOST`.
        k: importance samples in the bound of a latent-variable model.
        features: which, see `zoo.metrics.features.features_for`.
        weights: file of a feature network that does not come with the zoo.
        seed: of samples, latents and subsets.
    """

    split: Literal["val", "test"] = "test"
    samples: int | None = None
    k: int = 100
    features: str = "auto"
    weights: Path | None = None
    seed: int = 0


class Bench:
    """A model beside the data that it learned, held-out data and samples: each made once, when first asked for.

    Args:
        model: in eval mode, on its device.
        data: loaded.
        protocol: how to evaluate.
    """

    def __init__(self, model: GenerativeModel, data: DataModule, protocol: Protocol) -> None:
        self.model, self.data, self.protocol = model, data, protocol
        self.held: Split = getattr(data, protocol.split)

    def real(self, split: Split, indices: Tensor, *, train: bool) -> Split:
        """Data of a split as the model sees them, (N, *shape) and labels (N,)."""
        parts = [
            self.data.fetch(split, some, seeded(self.protocol.seed, number), train=train)
            for number, some in enumerate(indices.split(BATCH))
        ]
        return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])

    @cached_property
    def held_out(self) -> Split:
        """Of the split, all or the first `MOST`."""
        return self.real(self.held, torch.arange(min(len(self.held[0]), MOST)), train=False)

    def batches(self, size: int = BATCH) -> Iterator[Split]:
        """The whole split in its own order, on the model's device."""
        for some in torch.arange(len(self.held[0])).split(size):
            x, y = self.data.fetch(self.held, some, seeded(self.protocol.seed), train=False)
            yield x.to(self.model.device), y.to(self.model.device)

    @cached_property
    def training(self) -> Tensor:
        """As many training data as samples, chosen at random: what the floors are measured with."""
        order = torch.randperm(len(self.data.train[0]), generator=seeded(self.protocol.seed, 1))
        return self.real(self.data.train, order[: self.n], train=True)[0]

    @property
    def n(self) -> int:
        """Number of samples."""
        return self.protocol.samples or min(len(self.data.train[0]), MOST)

    @cached_property
    def drawn(self) -> Split:
        """Samples (n, *shape) on the CPU and the classes that were asked for, of an unconditional model all zero."""
        x, y = [], []
        for number, some in enumerate(torch.arange(self.n).split(BATCH)):
            generator = seeded(self.protocol.seed, 2, number)
            asked = some % max(self.data.spec.n_classes, 1)
            given = asked if self.model.conditional else None
            x.append(self.model.sample(len(some), condition=given, generator=generator).cpu().float())
            y.append(asked if given is not None else torch.zeros_like(asked))
        return torch.cat(x), torch.cat(y)

    @cached_property
    def features(self) -> Features:
        """The network in whose features samples are compared."""
        return features_for(self.data.spec, self.protocol.features, self.protocol.weights, data=self.data)

    def described(self) -> dict[str, str]:
        """The features that were used, and the hash of their weights."""
        used: Features | None = self.__dict__.get("features")
        return {} if used is None else {"name": used.name, "sha256": used.sha256}

    def name(self, metric: str, n: int | None = None, k: int | None = None) -> str:
        """`fd_digits@1437_test`: the metric, how many data, the split and the variant of the data."""
        size = len(self.held[0]) if n is None else n
        return "_".join(filter(None, [f"{metric}@{count(size)}", self.protocol.split, self.data.variant]))


def count(n: int) -> str:
    """10000 -> "10k", 1437 -> "1437"."""
    return f"{n // 1000}k" if n % 1000 == 0 and n else str(n)


# -- likelihoods -------------------------------------------------------------------------------------------------


def likelihood(bench: Bench) -> Scores:
    """Nats of the whole split: exact, or a lower bound on the likelihood and the tighter one of k samples.

    Bits per dimension where the model gives probabilities of the data's levels; those of a density depend on the
    data's scale, and its name says that it is one.
    """
    model = bench.model
    if model.spec.kind == "tokens":
        return text_likelihood(bench) if isinstance(model, HasLogProb) else {}
    kind = model.likelihood_kind
    if kind == "none":
        return {}
    suffix = ("_density" if kind == "density" else "") + ("_given_class" if model.conditional else "")
    scores: Scores = {}

    def add(metric: str, nats: Tensor) -> None:
        """The mean of nats per sample (N,), and the same in bits per dimension."""
        error = float(nats.std() / math.sqrt(len(nats)))
        scores[bench.name(metric + suffix)] = Score(float(nats.mean()), "lower", error=error)
        if kind == "mass":
            bits = 1 / (model.spec.dim * math.log(2))
            name = bench.name(metric.replace("nll", "bpd") if "nll" in metric else f"bpd_{metric}")
            scores[name] = Score(float(nats.mean()) * bits, "lower", error=error * bits)

    def over_split(method: Callable[..., Tensor], size: int, *options: Any) -> Tensor:
        parts = [method(x, *options, y=y if model.conditional else None) for x, y in bench.batches(size)]
        return -torch.cat(parts).double().cpu()

    if isinstance(model, HasLogProb):
        add("nll", over_split(model.log_prob, BATCH))
    if isinstance(model, HasBound):
        add("nelbo", over_split(model.bound, BATCH, 1))
        add(f"nll_iw{count(bench.protocol.k)}", over_split(model.bound, BATCH // 4, bench.protocol.k))
    return scores


def text_likelihood(bench: Bench) -> Scores:
    """Nats per token, perplexity and bits per byte of the whole split, every token once, in blocks side by side.

    The context policy is in the name: in `blocks256` a token is predicted from those before it in its block of 256.
    """
    model: Any = bench.model
    nats = tokens = known_nats = size = 0.0
    for batch in bench.batches(32):
        cost, target = model.nats(batch)
        cost, scored = cost.double(), target >= 0
        nats, tokens = nats + float(cost.sum()), tokens + float(scored.sum())
        if model.tokenizer is not None:
            bytes_ = model.piece_bytes[target.clamp(min=0)] * scored
            known = (bytes_ > 0) & (target != model.tokenizer.unknown)
            known_nats, size = known_nats + float((cost * known).sum()), size + float((bytes_ * known).sum())
    policy = f"all_{bench.protocol.split}_blocks{model.spec.shape[0]}"
    unit = f"{model.tokenizer.registered_name}{model.spec.vocab_size}" if model.tokenizer is not None else "token"
    scores: Scores = {
        f"nats_per_{unit}@{policy}": Score(nats / tokens, "lower"),
        f"perplexity_{unit}@{policy}": Score(math.exp(nats / tokens), "lower"),
    }
    if size:
        scores[f"bits_per_byte@{policy}"] = Score(known_nats / size / math.log(2), "lower")
    return scores


# -- samples -----------------------------------------------------------------------------------------------------


def samples(bench: Bench) -> Scores:
    """How far samples are from held-out data, always together with whether they are copies of training data."""
    if bench.model.spec.kind == "tokens":
        return written(bench)
    drawn, asked = bench.drawn
    held, labels = bench.held_out
    f = bench.features
    real, fake, other = f(held), f(drawn), f(bench.training)
    n, scores = len(drawn), dict[str, Score]()

    def add(metric: str, better: Better, measure: Callable[[Tensor], float], n: int = n) -> None:
        scores[bench.name(f"{metric}_{f.name}", n)] = Score(measure(fake), better, measure(other))

    add("fd", "lower", lambda z: float(frechet(moments(z), moments(real))))
    if f.dim >= 10:  # it compares directions, of which two numbers have few
        add("kd", "lower", lambda z: kernel_distance(z, real))
    equal = min(n, len(real))
    near = {id(z): in_equal_parts(real, z) for z in (fake, other)}
    for key in ("precision", "recall", "density", "coverage"):
        better: Better = "floor" if key == "density" else "higher"
        add(key, better, lambda z, key=key: near[id(z)][key], equal)  # type: ignore[misc]
    add("two_sample", "floor", lambda z: two_sample_accuracy(z, real, bench.protocol.seed), equal)
    add("vendi", "floor", vendi)
    scores |= memory(bench)
    if f.n_classes:
        scores |= classes(bench, f.classify(drawn), f.classify(held), asked, labels)
    centers = getattr(bench.data, "centers", None)
    if centers is not None:
        found, ideal = (points_on_modes(x, centers, bench.data.sigma) for x in (drawn, bench.training))  # type: ignore[attr-defined]
        wanted: dict[str, Better] = {"modes": "higher", "strict": "higher", "high_quality": "floor", "kl": "lower"}
        for key, better in wanted.items():
            name = {"modes": "modes", "strict": "modes_strict", "kl": "modes_kl"}.get(key, key)
            scores[bench.name(name, n)] = Score(found[key], better, ideal[key])
    return scores


def in_equal_parts(real: Tensor, fake: Tensor) -> dict[str, float]:
    """Precision, recall, density and coverage with as many samples as real data, averaged over all such parts.

    These depend on the ratio of the two numbers: ten samples for each real one cover almost anything.
    """
    size = min(len(real), len(fake))
    found = [prdc(real[:size], part) for part in fake.split(size) if len(part) == size]
    return {key: sum(part[key] for part in found) / len(found) for key in found[0]}


def memory(bench: Bench) -> Scores:
    """The memorisation probe, in the data's own space: nearest training data of samples against those of held-out ones.

    Its floor comes from training data that play the samples' part, and are themselves left out of the training data.
    """
    n = min(PROBED, bench.n)
    order = torch.randperm(len(bench.data.train[0]), generator=seeded(bench.protocol.seed, 3))
    apart = min(n, len(order) // 4)  # real data in the samples' place
    everything = bench.real(bench.data.train, order, train=True)[0]
    held = bench.held_out[0][:PROBED]
    found = memorisation(bench.drawn[0][:n], held, everything)
    floor = memorisation(everything[:apart], held, everything[apart:])
    wanted: dict[str, Better] = {"ratio": "floor", "copied": "floor", "authentic": "floor"}
    names = {"ratio": "nearest_train_ratio", "copied": "copied", "authentic": "authentic"}
    return {bench.name(names[key], n): Score(found[key], better, floor[key]) for key, better in wanted.items()}


def classes(bench: Bench, drawn: Tensor, held: Tensor, asked: Tensor, labels: Tensor) -> Scores:
    """Which classes a classifier sees in samples, against those that it sees in held-out data."""
    f, n = bench.features, len(drawn)
    trained = f.classify(bench.training)
    found, floor = (class_histogram_kl(z, held, f.n_classes) for z in (drawn, trained))
    wanted: dict[str, tuple[str, Better]] = {
        "seen": ("classes", "higher"),
        "strict": ("classes_strict", "higher"),
        "kl": ("class_kl", "lower"),
        "largest_deviation": ("class_share_off", "lower"),
    }
    scores = {
        bench.name(f"{name}_{f.name}", n): Score(found[key], better, floor[key])
        for key, (name, better) in wanted.items()
    }
    if bench.model.conditional:
        right, ideal = float((drawn == asked).float().mean()), float((held == labels).float().mean())
        scores[bench.name(f"class_accuracy_{f.name}", n)] = Score(right, "higher", ideal)
    return scores


def written(bench: Bench) -> Scores:
    """Texts begun from nothing: how varied, how repetitive, and of Python's source, how many parse."""
    model, data = bench.model, bench.data
    if not isinstance(model, Writes):
        return {}
    made = [t.text for t in model.generate([""] * TEXTS, max_new_tokens=LENGTH, seed=bench.protocol.seed)]
    real = data.excerpts(bench.protocol.split, TEXTS, LENGTH)  # type: ignore[attr-defined]
    name = f"{TEXTS}x{LENGTH}_{bench.protocol.split}"
    scores: Scores = {
        f"distinct2@{name}": Score(distinct(made, 2), "floor", distinct(real, 2)),
        f"repetition4@{name}": Score(repetition(made, 4), "floor", repetition(real, 4)),
    }
    if data.python:  # type: ignore[attr-defined]
        scores[f"parses@{name}"] = Score(share_that_parses(made), "higher", share_that_parses(real))
    return scores


# -- latents and reconstructions -----------------------------------------------------------------------------------


def reconstructions(bench: Bench) -> Scores:
    """Held-out data through the latent and back."""
    model = bench.model
    if not isinstance(model, Encodes):
        return {}
    pairs = [(x.cpu(), model.reconstruct(x, y).cpu().float()) for x, y in bench.batches()]
    found = reconstruction(*(torch.cat(side) for side in zip(*pairs, strict=True)))
    better: dict[str, Better] = {"mse": "lower", "psnr": "higher", "ssim": "higher"}
    return {bench.name(f"reconstruction_{key}"): Score(value, better[key]) for key, value in found.items()}


def latents(bench: Bench) -> Scores:
    """Are the latents used, and do the prior's draws look like them?"""
    model = bench.model
    if not isinstance(model, Encodes):
        return {}
    scores, pairs = dict[str, Score](), list(bench.batches())
    means = torch.cat([model.encode(x, y).cpu() for x, y in pairs])
    z = means
    if isinstance(model, HasPosterior):
        posteriors = [model.posterior(x, y) for x, y in pairs]
        mean, log_std = (torch.cat(side).cpu() for side in zip(*posteriors, strict=True))
        z = mean + log_std.exp() * torch.randn(mean.shape, generator=seeded(bench.protocol.seed, 4))
        rates = kl_per_dim(mean, log_std)
        scores[bench.name("kl_to_standard_normal")] = Score(float(rates.sum()), "lower", parts=tuple(rates.tolist()))
    scores[bench.name(f"active_units_of_{means.shape[1]}")] = Score(active_units(means), "higher")
    if isinstance(model, HasPrior):
        z = z[:MOST]
        one, two = (model.draw_latents(len(z), seeded(bench.protocol.seed, 5 + i)).cpu() for i in (0, 1))
        scores[bench.name("latent_mmd", len(z))] = Score(aggregate_match(z, one), "lower", aggregate_match(two, one))
    return scores


GROUPS: dict[str, Callable[[Bench], Scores]] = {
    "likelihood": likelihood,
    "samples": samples,
    "reconstruction": reconstructions,
    "latent": latents,
}
