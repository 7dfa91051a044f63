"""Samples of models that are conditioned on texts: those of the command line, and what it refuses."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from tests.serve.given_models import prompted_model, random_weights
from tests.serve.servers import get, is_error, picture_model, post, running
from tests.serve.test_command import saved
from zoo.cli.draw import draw
from zoo.data.loader import make_generator
from zoo.serve.pool import find_sources

TEXT = "a handwritten three"
SMALL = {"d_model": 16, "n_layers": 1, "n_heads": 1}


def picture_transformer():
    return random_weights("image_gpt", "captioned_digits", backbone={"name": "transformer", **SMALL})


MAKERS = {"diffusion": prompted_model, "image_gpt": picture_transformer}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prompted")
    return {name: saved(make(), folder / name) for name, make in MAKERS.items()}


@pytest.fixture(scope="module")
def server(runs):
    models = {name: find_sources([str(run)])[0] for name, run in runs.items()}
    with running(models | {"classes": lambda: picture_model(conditional=True)}) as found:
        yield found


def ask(server, path, **body):
    answer = post(f"{server.url}{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def numbers(items):
    return np.array([item["values"] for item in items], np.float32)


@pytest.mark.parametrize("name", ["diffusion", "image_gpt"])
def test_samples_of_a_prompt_are_those_of_the_command_line(server, runs, name, tmp_path):
    words = ["steps=3"] if name == "diffusion" else []
    options = {"steps": 3} if name == "diffusion" else {}
    draw(runs[name], 3, options=words, seed=5, out=tmp_path / "x.npy", prompts=[TEXT])
    wanted = np.load(tmp_path / "x.npy")
    body = {"model": name, "n": 3, "seed": 5, "options": options}
    found = numbers(ask(server, "/api/sample", **body, prompt=TEXT, format="values")["samples"])
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    for other in ({"prompt": "zero"}, {}):  # the controls: a text, and no text
        again = numbers(ask(server, "/api/sample", **body, **other, format="values")["samples"])
        assert np.abs(again - found).max() > 1e-3
    pictures = ask(server, "/v1/images/generations", **body, prompt=TEXT)["data"]
    pixels = [np.asarray(Pillow.open(io.BytesIO(base64.b64decode(each["b64_json"]))).convert("L")) for each in pictures]
    assert np.abs(np.stack(pixels) / 255 - wanted[:, 0]).max() <= 0.5 / 255 + 1e-6


def test_other_operations_take_the_prompt(server):
    model = prompted_model()
    y, options = model.text_condition([TEXT] * 2), {"steps": 3}
    body = {"model": "diffusion", "n": 2, "seed": 2, "prompt": TEXT, "options": options, "format": "values"}
    walks = ask(server, "/api/denoising", **body, frames=3)["walks"]
    wanted = model.denoising(2, 3, condition=y, generator=make_generator(2), steps=3).detach().numpy()
    np.testing.assert_allclose([numbers(walk) for walk in walks], wanted, atol=1e-5)
    x = torch.rand(1, 8, 8, generator=make_generator(0))
    x = (x * 16).round() / 16
    edited = ask(server, "/api/edit", **body, item={"values": x.tolist()})["samples"]
    wanted = model.edit(x.expand(2, 1, 8, 8), condition=y, generator=make_generator(2), steps=3).detach().numpy()
    np.testing.assert_allclose(numbers(edited), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "path", "body", "words"),
    [
        ("diffusion", "/api/sample", {"prompt": "a very long text of a three"}, "more than 3"),
        ("diffusion", "/v1/images/generations", {"prompt": "a very long text of a three"}, "more than 3"),
        ("diffusion", "/api/sample", {"prompt": "a xyzzy"}, "7 tokens"),  # an unknown word is spelled in bytes
        ("image_gpt", "/api/sample", {"prompt": "a" * 1001}, "longer than 1000"),
        ("image_gpt", "/api/sample", {"prompt": 3}, "must be text"),
        ("classes", "/api/sample", {"prompt": "three"}, "not conditioned on texts"),
        ("classes", "/api/denoising", {"prompt": "three"}, "without the ability"),
        ("classes", "/v1/images/generations", {"prompt": "three"}, "not the number of a class"),
        ("classes", "/api/interpolate", {"prompt": "three"}, "not conditioned on texts"),
    ],
)
def test_what_does_not_fit_is_refused(server, model, path, body, words):
    error = is_error(post(f"{server.url}{path}", json={"model": model} | body), 400)
    assert words in error["message"]
    assert error["param"] == ("prompt" if "ability" not in words else "model")


def test_a_prompt_and_a_label_are_refused(server):
    body = {"model": "classes", "prompt": "three", "label": 3}
    assert is_error(post(f"{server.url}/api/sample", json=body), 400)["param"] == "label"


def test_descriptions_say_which_models_take_a_prompt(server):
    models = {m["id"]: m["details"] for m in get(f"{server.url}/api/models").json()["models"]}
    assert {name: details["prompt"] for name, details in models.items()} == {
        "diffusion": 3, "image_gpt": 3, "classes": None,
    }  # fmt: skip
