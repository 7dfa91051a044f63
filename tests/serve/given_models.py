"""Tiny models that answer about given data or change it, which nobody trained unless it takes no time."""

from collections.abc import Callable

import torch

import zoo
from tests.data.table.examples import SPEC as TABLE
from tests.data.table.examples import rows
from zoo.core.spaces import Image, Interactions, Series, Unpaired

FILMS = ("Alien", "Brazil", "Casablanca", "Dune", "Eraserhead", "Fargo")
SERIES = zoo.DataSpec(Series(12, ("level", "flow"), 4, missing=True), name="measurements")
GREY, COLOUR = Image(1, 8, 8, levels=17), Image(3, 16, 16)


def random_weights(name: str, data, std: float = 0.4, **settings):
    """A model with random weights everywhere."""
    torch.manual_seed(0)
    model = zoo.create_model(name, data=data, **settings)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model.eval()


def recommender():
    """Fitted to users who choose the first three items, or the last three."""
    model = zoo.create_model("ease", data=zoo.DataSpec(Interactions(len(FILMS), FILMS), name="films"))
    halves = torch.tensor([[1.0, 1, 1, 0, 0, 0], [0.0, 0, 0, 1, 1, 1]])
    model.fit(halves.repeat_interleave(5, 0))
    return model.eval()


def table_model():
    model = zoo.create_model("gaussian_copula", data=TABLE)
    model.fit(rows(200))
    return model.eval()


def video_model():
    """One batch has trained it."""
    data = zoo.create_data("moving_digits", frames=3, size=10, batch_size=4)
    settings = {"denoiser": {"name": "space_time_unet", "width": 8}, "sampler": {"name": "heun", "steps": 2}}
    return zoo.fit(zoo.create_model("diffusion", data=data, **settings), data, max_steps=1, progress=False)


def prompted_model():
    text_encoder = {"name": "transformer_encoder", "d_model": 16, "n_layers": 1, "n_heads": 1}
    denoiser = {"name": "mlp", "width": 32, "depth": 1}
    return random_weights("diffusion", "captioned_digits", denoiser=denoiser, text_encoder=text_encoder)


GIVEN: dict[str, Callable] = {
    "captions": lambda: random_weights("captioner", "captioned_shapes", d_model=16, n_layers=1, n_heads=2),
    "answers": lambda: random_weights("vqa", "sort_of_clevr", 0.1, width=8, d_model=16, n_layers=1, n_heads=2),
    "pairs": lambda: random_weights("pix2pix", zoo.DataSpec(COLOUR, Image(1, 8, 8), name="pairs"), 0.1),
    "domains": lambda: random_weights("cyclegan", zoo.DataSpec(COLOUR, Unpaired(GREY), name="domains"), 0.1),
    "styles": lambda: random_weights("style_transfer", zoo.DataSpec(COLOUR, name="pictures"), 0.1),
    "seasons": lambda: zoo.create_model("seasonal_naive", data=SERIES, period=4).eval(),
    "films": recommender,
    "cells": table_model,
    "clips": video_model,
}
