"""Every recipe with every kind of data that it accepts."""

from collections.abc import Iterable
from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from sklearn.datasets import load_digits

import zoo
from tests.data.table.examples import SPEC as TABLE
from tests.data.table.examples import rows
from zoo.api import ModelInfo
from zoo.config.compose import compose, to_plain
from zoo.config.recipes import recipes as files
from zoo.config.recipes import written
from zoo.core.registry import build, get, parts, peek
from zoo.core.spaces import (
    ABSENT,
    Audio,
    Codes,
    Image,
    Interactions,
    Label,
    Pair,
    Preference,
    Series,
    Table,
    Tokens,
    Vector,
    Video,
)
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.models.base import Model

SIZES = {"d_model": 32, "n_layers": 2, "n_heads": 2}  # of transformers, in tests
DENOISER = {"d_model": 32, "n_heads": 1, "n_layers": 2, "width": 16, "depth": 1}  # of denoising networks
TRANSFORM = SIZES | {"n_couplings": 2, "n_blocks": 2, "bins": 4, "width": 16, "depth": 1}  # of flows
NETWORKS = ("generator", "discriminator", "encoder", "decoder", "denoiser")
WIDTH = 16  # of encoders and decoders
CONVOLVED = ("diffusion", "meanflow")  # other recipes denoise pictures by an MLP, which takes less time
RECIPES = zoo.list_models()
WAVEFORMS = ("audio_codec", "vocoder")  # recipes with a network for sounds
SOUNDS = (*WAVEFORMS, "linear_prediction", "sound_markov")  # recipes for nothing else


@cache
def info_of(name: str) -> ModelInfo:
    """Facts about a recipe; its settings are composed once."""
    return zoo.model_info(name)


def distinct(recipes: list[str]) -> list[str]:
    """Without those that differ from another in size or length of training alone."""
    found: dict[str, str] = {}
    for name in recipes:
        values, _ = written(files("model")[name])
        network = values.pop("backbone", {})
        network = {"name": network} if isinstance(network, str) else network
        sized = [{k: v for k, v in given.items() if k not in (*SIZES, "training")} for given in (values, network)]
        found.setdefault(str([info_of(name).registered, *sized]), name)
    return list(found.values())


MODELS = distinct(RECIPES)
SPECS = {
    "image": zoo.DataSpec(Image(1, 8, 8, levels=17), Label(10), name="digits"),
    "wide": zoo.DataSpec(Image(3, 10, 14, levels=17), Label(3), name="wide"),
    "vector": zoo.DataSpec(Vector(2), Label(4), name="points"),
    "interactions": zoo.DataSpec(Interactions(40), name="choices"),
    "tokens": zoo.DataSpec(Tokens(16, 20), name="letters"),
    "pair": zoo.DataSpec(Pair(Tokens(12, 20), Tokens(12, 20)), name="sentences"),
    "table": TABLE,
    "pictures": zoo.DataSpec(Image(3, 8, 8), Image(1, 8, 8), name="pictures"),
    "series": zoo.DataSpec(Series(9, ("level", "flow"), 3), name="measurements"),
    "sounds": zoo.DataSpec(Audio(1, 90, 8000), Label(3), name="sounds"),
    "video": zoo.DataSpec(Video(3, 1, 8, 6, levels=17), Label(4), name="clips"),
    "preferences": zoo.DataSpec(Preference(Tokens(12, 20)), name="answers"),
    "codes": zoo.DataSpec(Codes((1 + 4 + 9,), 16, (1, 2, 3), (1, 2, 3)), Label(4), name="latents"),
}


def examples(spec: zoo.DataSpec, n: int) -> Batch:
    """Data that a spec describes: real digits where they fit, else seeded noise."""
    if isinstance(spec.x, Tokens):
        window = torch.randint(spec.tokens.vocab_size, (n, spec.shape[0] + 1), generator=make_generator(1))
        return Batch(window[:, :-1], window[:, 1:])
    if isinstance(spec.x, Pair):
        return Batch(ragged(n, spec, 2), ragged(n, spec, 3))
    if isinstance(spec.x, Preference):
        answers = torch.stack([ragged(n, spec, seed) for seed in (2, 3)], 1)  # (n, 2, T)
        read = answers.clamp(min=0).roll(1, 2)
        read[..., 0] = spec.tokens.vocab_size - 1
        return Batch(read, answers)
    if isinstance(spec.x, Interactions):
        chosen = torch.stack([torch.randint(spec.size, (n, 3), generator=make_generator(seed)) for seed in (2, 3)])
        return Batch(*torch.zeros(2, n, spec.size).scatter(2, chosen, 1.0))
    y = torch.randint(max(spec.n_classes, 1), (n,), generator=make_generator(2))
    if isinstance(spec.x, Codes):
        return Batch(torch.randint(spec.x.codebook_size, (n, *spec.shape), generator=make_generator(4)), y)
    if isinstance(spec.condition, Image):
        return Batch(*(torch.rand(n, *one.shape, generator=make_generator(5)) for one in (spec.x, spec.condition)))
    if isinstance(spec.x, Table):
        return Batch(rows(n), y)
    if isinstance(spec.x, Audio):
        pitch = 0.2 + torch.rand(n, 1, 1, generator=make_generator(3))  # radians per sample
        return Batch((torch.arange(spec.shape[1]) * pitch).sin().expand(n, *spec.shape) / 4, y)
    if isinstance(spec.x, Vector | Series):
        return Batch(torch.randn(n, *spec.shape, generator=make_generator(3)), y)
    if spec.shape == (1, 8, 8):
        digits = load_digits()
        return Batch(torch.tensor(digits.images[:n, None] / 16, dtype=torch.float32), torch.tensor(digits.target[:n]))
    return Batch(torch.randint(spec.x.levels, (n, *spec.shape), generator=make_generator(4)) / (spec.x.levels - 1), y)


def ragged(n: int, spec: zoo.DataSpec, seed: int) -> torch.Tensor:
    """Texts of one token to a whole context, each with its end and nothing after it."""
    size, generator = spec.shape[0], make_generator(seed)
    tokens = torch.randint(spec.tokens.vocab_size - 1, (n, size), generator=generator)
    ends = torch.randint(1, size, (n, 1), generator=generator)
    place = torch.arange(size)
    return tokens.masked_fill(place == ends, spec.tokens.vocab_size - 1).masked_fill(place > ends, ABSENT)


@cache
def fitting(name: str) -> list[str]:
    """Kinds of data in SPECS that a recipe accepts. Series and videos differ in networks only: once for each class."""
    info = info_of(name)
    given = hasattr(get("model", info.registered), "required_condition")  # learns nothing without an image as condition
    fits = [key for key, spec in SPECS.items() if spec.x.registered_name in info.accepts]
    fits = [key for key in fits if isinstance(SPECS[key].condition, Image) == given]
    fits = [key for key in fits if (key == "sounds") == (name in SOUNDS)]
    fits = [key for key in fits if key != "codes"] or fits  # in place of pixels, which other models learn too
    return [key for key in fits if key not in ("series", "video") or info.registered == name]


FIRST_STAGE = {"network": {"name": "resnet", "width": 8, "n_blocks": 1}, "quantizer": {"name": "vq", "n_codes": 16}}
KL = {"name": "kl_autoencoder", "channels": 2, "network": FIRST_STAGE["network"]}
BACKBONE = {"name": "transformer_encoder", **SIZES}
CONFIDENCE, HEUN = {"name": "confidence", "steps": 2}, {"name": "heun", "steps": 2}
PAIRS: dict[str, dict[str, Any]] = {  # of stages, whose class is `two_stage`
    "two_stage": {
        "first_stage": {"name": "vqvae", **FIRST_STAGE},
        "second_stage": {"name": "masked_diffusion", "masking": "cosine", "sampler": CONFIDENCE, "backbone": BACKBONE},
    },
    "codes_gpt": {
        "first_stage": {"name": "vqvae", **FIRST_STAGE},
        "second_stage": {"name": "language_model", "backbone": {"name": "transformer", **SIZES}},
    },
    "codes_next_scale": {
        "first_stage": {"name": "vqvae", **FIRST_STAGE, "quantizer": {"name": "multi_scale", "n_codes": 16}},
        "second_stage": {"name": "next_scale", **SIZES},
    },
    "latent_diffusion": {
        "first_stage": KL,
        "second_stage": {"name": "diffusion", "denoiser": {"name": "auto", "width": 16}, "sampler": HEUN},
    },
}
CASES = [(name, key) for name in MODELS for key in fitting(name)]
CASES += [(pair, "image") for pair in PAIRS if pair not in MODELS]


@cache
def class_of(name: str) -> str:
    """The registered class of a recipe; that of a pair of stages is the pair."""
    return name if name in PAIRS else info_of(name).registered


def one_recipe_of_each_class(cases: Iterable[tuple[str, ...]]) -> list[Any]:
    """Parameters of a test (recipe, ...): that with the name of its class, or the first; others are `slow`."""
    chosen: dict[tuple[str, ...], tuple[str, ...]] = {}
    cases = list(cases)
    for case in sorted(cases, key=lambda case: case[0] != class_of(case[0])):
        chosen.setdefault((class_of(case[0]), *case[1:]), case)
    return [pytest.param(*case, marks=() if case in chosen.values() else pytest.mark.slow) for case in cases]


def one_case_of_each_class(cases: Iterable[tuple[str, str]]) -> list[Any]:
    """Parameters of a test (recipe, kind of data): of each class, its recipe on the first kind; others are `slow`."""
    kinds: dict[str, str] = {}
    for case in (given := one_recipe_of_each_class(cases)):
        if not case.marks:
            kinds.setdefault(class_of(case.values[0]), case.values[1])
    return [
        case if case.marks or case.values[1] == kinds[class_of(case.values[0])] else slow(case.values)[0]
        for case in given
    ]


def slow(*cases: Any) -> list[Any]:
    """Parameters of a test that only `pytest -m slow` runs."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow) for case in cases]


def paired(cases: Iterable[tuple[str, ...]]) -> list[Any]:
    """Parameters of a test: each recipe on one kind of data, and each class on every kind; other pairs are `slow`."""
    cases = list(cases)
    kept = {case[0]: case for case in reversed(cases)}  # of the kinds of data of a recipe, the first
    chosen = {*kept.values(), *(case.values for case in one_recipe_of_each_class(cases) if not case.marks)}
    return [pytest.param(*case, marks=() if case in chosen else pytest.mark.slow) for case in cases]


IMAGES = [name for name in MODELS if "image" in fitting(name)]


def make(name: str, data: str | zoo.DataSpec, small: bool = True, **given: Any) -> Model:
    """A recipe on one of the specs, or another one, with given settings.

    Networks have a small size unless `small` is false. Convolutions give way to an MLP where the data has no height and
    width.
    """
    spec = SPECS[data] if isinstance(data, str) else data
    torch.manual_seed(0)
    settings = deepcopy(configured(name, isinstance(spec.x, Vector | Series), small))
    model = build("model", settings | given, spec, where="model")
    if "teacher" in settings:  # an untrained flow moves nothing, so that there is nothing to learn
        for parameter in model.teacher.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    if name in PAIRS:
        torch.nn.init.constant_(model.first_stage.network.decoder[-1].bias, 0.5)  # grey, and not clamped to black
        model.first_stage.density.fit(model.first_stage.latents_to_fit(examples(spec, 32)))
    return model


def settings_of(name: str) -> DictConfig:
    """The settings of a recipe."""
    return info_of(name).settings


@cache
def configured(name: str, vector: bool, small: bool) -> dict[str, Any]:
    """The settings that `zoo.create_model` composes, once for each recipe."""
    if name in PAIRS:
        return {"name": "two_stage", **PAIRS[name]}
    settings = settings_of(name)
    swap: dict[str, Any] = {}
    for role in (role for role in NETWORKS if role in settings):
        flat = vector or (role == "denoiser" and settings[role].name == "auto" and name not in CONVOLVED)
        network = "mlp" if flat else settings[role].name
        sizes = {"width": WIDTH} if small else {}
        if role == "denoiser":
            sizes = DENOISER if small or not flat else DENOISER | {"width": 128}
        known = {s.name for s in peek(parts("model")[role], network).settings}
        swap[role] = {"name": network, **{k: v for k, v in sizes.items() if k in known}}
    swap |= {k: v for k, v in SIZES.items() if k in settings}
    if "backbone" in settings:
        swap["backbone"] = {k: v for k, v in SIZES.items() if k in settings.backbone}
    if "transform" in settings:
        swap["transform"] = {k: v for k, v in TRANSFORM.items() if k in settings.transform}
    if small and "n_components" in settings:
        swap["n_components"] = min(settings.n_components, 3)
    if small and "n_hidden" in settings:
        swap["n_hidden"] = 4
    if "sampler" in settings:
        swap["sampler"] = {"steps": 2}
    if "block_size" in settings:
        swap["block_size"] = 8  # of 420 values
    if "transition" in settings:
        swap["transition"] = {"steps": 2}
    if "teacher" in settings and "policy" in settings:
        swap["teacher"] = {"name": "language_model", "backbone": {"name": "transformer", **SIZES}}
    elif "teacher" in settings:
        swap["teacher"] = {"name": "diffusion", "denoiser": swap["denoiser"], "sampler": {"name": "heun", "steps": 2}}
        swap["coupling"] = {"pairs": 16}
    if "text_model" in settings:
        swap["text_model"] = {"name": "bert", "backbone": BACKBONE}
    if "policy" in settings:
        swap["policy"] = {"name": "language_model", "backbone": {"name": "transformer", **SIZES}}
    if "patch_discriminator" in settings:
        swap["patch_discriminator"] = {"name": "patchgan", "width": 8}
    if "adversarial_start" in settings:
        swap["adversarial_start"] = 0
    if "translator" in settings:
        swap["translator"] = {"width": 8}
    if "network" in settings:
        swap["network"] = {"width": 8} if name in WAVEFORMS else FIRST_STAGE["network"]
    if "waveform_decoder" in settings:
        swap |= {"n_fft": 32, "hop": 8, "n_mels": 8, "waveform_decoder": {"width": 16, "n_layers": 1}}
    if "reward" in settings:
        swap["reward"] = "similar"  # noise is never exactly right
    composed = to_plain(compose(f"model={name}", model=swap).model)
    return {k: v for k, v in composed.items() if k != "training"}
