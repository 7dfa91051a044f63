"""What can be measured of a trained model: groups of metrics, each asking the model for what it needs."""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from zoo.data.instructions import Answers
from zoo.data.loader import seeded
from zoo.metrics.bench import BATCH, Bench, Better, Score, Scores, count
from zoo.metrics.diversity import vendi
from zoo.metrics.frechet import frechet, moments
from zoo.metrics.kernel import kernel_distance
from zoo.metrics.latent import active_units, aggregate_match, kl_per_dim
from zoo.metrics.manifold import prdc
from zoo.metrics.memorisation import memorisation
from zoo.metrics.modes import class_histogram_kl, points_on_modes
from zoo.metrics.reconstruction import reconstruction
from zoo.metrics.text import distinct, repetition, share_that_parses
from zoo.metrics.translation import bleu, chrf, exact
from zoo.metrics.two_sample import two_sample_accuracy
from zoo.models.base import Encodes, Guesses, HasBound, HasLogProb, HasPosterior, HasPrior, Writes

PROBED = 2_000  # samples in the memorisation probe, which goes through all training data
LATENTS = 5_000  # in the match with the prior, whose kernels take a second for each 10 million pairs
TEXTS, LENGTH = 64, 256  # texts written, and tokens in each at most
BEAMS = 5  # width of the search for targets

# -- likelihoods -------------------------------------------------------------------------------------------------


def likelihood(bench: Bench) -> Scores:
    """Nats of the whole split: exact, or a lower bound on the likelihood and the tighter one of k samples.

    Bits per dimension where the model gives probabilities of the data's levels; those of a density depend on the
    data's scale, and its name says that it is one.
    """
    model = bench.model
    if model.spec.kind == "preferences":
        return {}  # a comparison of two answers is no likelihood of anything
    if model.spec.text:
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

    The context policy is in the name: in `blocks256` a token is predicted from those before it in its block of 256. Of
    pairs every target is scored whole, after its source, and of `answers` each, after its prompt.
    """
    model: Any = bench.model
    nats = tokens = known_nats = size = 0.0
    for batch in bench.batches(32):
        cost, target = model.nats(batch)
        cost, scored = cost.double(), target >= 0
        nats, tokens = nats + float(cost.sum()), tokens + float(scored.sum())
        if model.tokenizer is not None:
            sizes = model.sizes(target)
            known_nats, size = known_nats + float((cost * (sizes > 0)).sum()), size + float(sizes.sum())
    policy = context_policy(bench) + getattr(model, "scored", "")
    unit = f"{model.tokenizer.registered_name}{model.spec.vocab_size}" if model.tokenizer is not None else "token"
    scores: Scores = {
        f"nats_per_{unit}@{policy}": Score(nats / tokens, "lower"),
        f"perplexity_{unit}@{policy}": Score(math.exp(nats / tokens), "lower"),
    }
    if size:
        scores[f"bits_per_byte@{policy}"] = Score(known_nats / size / math.log(2), "lower")
    return scores


def context_policy(bench: Bench) -> str:
    """The part of a name that says which tokens are asked for, and what is known of each."""
    if isinstance(bench.data, Answers):
        return f"answers_{bench.protocol.split}"
    blocks = f"_blocks{bench.model.spec.shape[0]}" if bench.model.spec.kind == "tokens" else ""
    return f"all_{bench.protocol.split}{blocks}"


def predictions(bench: Bench) -> Scores:
    """How often the likeliest token is the right one: the next, given those before it, or a hidden one, given all."""
    model = bench.model
    if model.spec.kind not in ("tokens", "pair") or not isinstance(model, Guesses):
        return {}
    found = torch.cat([model.guesses(batch).cpu() for batch in bench.batches(32)]).double()
    what = "next" if isinstance(model, HasLogProb) else "hidden"
    name = f"{what}_token_found@{context_policy(bench)}"
    return {name: Score(float(found.mean()), "higher", error=float(found.std() / math.sqrt(max(len(found), 1))))}


# -- samples -----------------------------------------------------------------------------------------------------


def samples(bench: Bench) -> Scores:
    """How far samples are from held-out data, always together with whether they are copies of training data."""
    if isinstance(bench.data, Answers):
        return answered(bench)
    if bench.model.spec.text:
        return translated(bench) if bench.model.spec.kind == "pair" else written(bench)
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
    if getattr(bench.data, "centers", None) is not None:
        scores |= modes(bench)
    return scores


def modes(bench: Bench) -> Scores:
    """Which of the Gaussians that points are drawn from a model finds."""
    data: Any = bench.data
    found, floor = (points_on_modes(x, data.centers, data.sigma) for x in (bench.drawn[0], bench.training))
    wanted: dict[str, tuple[str, Better]] = {
        "modes": ("modes", "higher"),
        "strict": ("modes_strict", "higher"),
        "high_quality": ("high_quality", "floor"),
        "kl": ("modes_kl", "lower"),
    }
    return named(bench, wanted, found, floor)


def named(
    bench: Bench, wanted: dict[str, tuple[str, Better]], found: dict[str, float], floor: dict[str, float]
) -> Scores:
    """Scores of samples: key of what was found -> (name of the metric, what it should be like)."""
    n = len(bench.drawn[0])
    return {bench.name(name, n): Score(found[key], better, floor[key]) for key, (name, better) in wanted.items()}


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
    Where these are too many to hold, as many as fit are looked through, and the names say how many.
    """
    n, size = min(PROBED, bench.n), len(bench.data.train[0])
    order = torch.randperm(size, generator=seeded(bench.protocol.seed, 3))[: bench.room]
    within = f"_in_{count(len(order))}" if len(order) < size else ""
    apart = min(n, len(order) // 4)  # real data in the samples' place
    everything = bench.real(bench.data.train, order, train=True)[0]
    held = bench.held_out[0][:PROBED]
    found = memorisation(bench.drawn[0][:n], held, everything)
    floor = memorisation(everything[:apart], held, everything[apart:])
    names = {"ratio": "nearest_train_ratio", "copied": "copied", "authentic": "authentic"}
    return {bench.name(name + within, n): Score(found[key], "floor", floor[key]) for key, name in names.items()}


def classes(bench: Bench, drawn: Tensor, held: Tensor, asked: Tensor, labels: Tensor) -> Scores:
    """Which classes a classifier sees in samples, against those that it sees in held-out data."""
    f = bench.features
    trained = f.classify(bench.training)
    found, floor = (class_histogram_kl(z, held, f.n_classes) for z in (drawn, trained))
    wanted: dict[str, tuple[str, Better]] = {
        "seen": (f"classes_{f.name}", "higher"),
        "strict": (f"classes_strict_{f.name}", "higher"),
        "kl": (f"class_kl_{f.name}", "lower"),
        "largest_deviation": (f"class_share_off_{f.name}", "lower"),
    }
    scores = named(bench, wanted, found, floor)
    if bench.model.conditional:
        right, ideal = float((drawn == asked).float().mean()), float((held == labels).float().mean())
        scores[bench.name(f"class_accuracy_{f.name}", len(drawn))] = Score(right, "higher", ideal)
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


def answered(bench: Bench) -> Scores:
    """How many prompts of the split are answered as the data do, the likeliest token taken each time."""
    model, data = bench.model, cast(Any, bench.data)
    if not isinstance(model, Writes):
        return {}
    pairs = data.pairs(bench.protocol.split)
    longest = max(len(ids) for ids in data.tokenizer.encode_all([answer for _, answer in pairs]))
    options = {"temperature": 0, "max_new_tokens": longest + 1, "seed": bench.protocol.seed}  # more would be wrong
    made: list[str] = []
    for start in range(0, len(pairs), TEXTS):
        made += [done.text for done in model.generate([p for p, _ in pairs[start : start + TEXTS]], **options)]
    share = exact(made, [answer for _, answer in pairs])
    error = math.sqrt(share * (1 - share) / len(pairs))
    return {bench.name("exact_greedy", len(pairs)): Score(share, "higher", error=error)}


def translated(bench: Bench) -> Scores:
    """What is written after every source of the split, against its target; how it is searched for is in the name."""
    if not isinstance(bench.model, Writes):
        return {}
    model, data = cast(Any, bench.model), bench.data
    pairs = data.pairs(bench.protocol.split)  # type: ignore[attr-defined]
    targets, small = [target for _, target in pairs], model.tokenizer.lowercase
    scores: Scores = {}
    searches: dict[str, dict[str, Any]] = {"greedy": {"temperature": 0}, f"beam{BEAMS}": {"beams": BEAMS}}
    for search, options in searches.items():
        outputs: list[str] = []
        for start in range(0, len(pairs), TEXTS):
            sources = [source for source, _ in pairs[start : start + TEXTS]]
            outputs += [done.text for done in model.generate(sources, seed=bench.protocol.seed, **options)]
        for name, metric in (("bleu", bleu), ("chrf", chrf)):
            value, signature = metric(outputs, targets, small)
            scores[bench.name(f"{name}_{search}", len(pairs))] = Score(value, "higher", note=signature)
        scores[bench.name(f"exact_{search}", len(pairs))] = Score(exact(outputs, targets, small), "higher")
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
    scores: Scores = {}
    if isinstance(model, HasPosterior):
        both = [torch.stack(model.posterior(x, y)).cpu() for x, y in bench.batches()]
        means, log_std = torch.cat(both, dim=1)  # each (N, D)
        z = means + log_std.exp() * torch.randn(means.shape, generator=seeded(bench.protocol.seed, 4))
        rates = kl_per_dim(means, log_std)
        scores[bench.name("kl_to_standard_normal")] = Score(float(rates.sum()), "lower", parts=tuple(rates.tolist()))
    else:
        z = means = torch.cat([model.encode(x, y).cpu() for x, y in bench.batches()])
    scores[bench.name(f"active_units_of_{means.shape[1]}")] = Score(active_units(means), "higher")
    if isinstance(model, HasPrior):
        z = z[:LATENTS]
        one, two = (model.draw_latents(len(z), seeded(bench.protocol.seed, 5 + i)).cpu() for i in (0, 1))
        scores[bench.name("latent_mmd", len(z))] = Score(aggregate_match(z, one), "lower", aggregate_match(two, one))
    return scores


GROUPS: dict[str, Callable[[Bench], Scores]] = {
    "likelihood": likelihood,
    "prediction": predictions,
    "samples": samples,
    "reconstruction": reconstructions,
    "latent": latents,
}
