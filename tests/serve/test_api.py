"""The typed interface: samples, walks, latents, likelihoods, masks, changes; and descriptions of models."""

import base64
import io

import httpx2 as httpx
import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from tests.serve.servers import MODELS, masked_model, picture_model, running
from zoo.core.spaces import Image as Space
from zoo.core.spaces import Label
from zoo.data.loader import make_generator
from zoo.serve.limits import Limits
from zoo.serve.media import Item, from_items, to_items


@pytest.fixture(scope="module")
def digits():
    return picture_model()


def post(client, path, **body):
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def values(items):
    return torch.tensor([item["values"] for item in items])


def test_samples_are_those_of_the_model(client, digits):
    found = post(client, "/api/sample", model="digits", n=3, seed=11, format="values")
    with torch.no_grad():
        assert torch.allclose(values(found["samples"]), digits.sample(3, generator=make_generator(11)))
    assert found["space"] == "image"
    again = post(client, "/api/sample", model="digits", n=3, seed=11)
    for item, x in zip(again["samples"], values(found["samples"]), strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(item["image"]))).convert("L"))
        assert np.abs(pixels / 255 - x[0].numpy()).max() <= 0.5 / 255 + 1e-6


def test_a_sample_without_a_seed_tells_its_seed(client):
    found = post(client, "/api/sample", model="points")
    assert post(client, "/api/sample", model="points", seed=found["seed"]) == found
    assert post(client, "/api/sample", model="points")["seed"] != found["seed"]


def test_classes_and_options_reach_the_sampler(client):
    model = picture_model(conditional=True)
    found = post(client, "/api/sample", model="classes", n=2, label=4, seed=1, options={"noise": True}, format="values")
    with torch.no_grad():
        wanted = model.sample(2, condition=torch.tensor([4, 4]), generator=make_generator(1), noise=True)
    assert torch.allclose(values(found["samples"]), wanted)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "digits", "label": 3}, "label"),
        ({"model": "classes", "label": 10}, "label"),
        ({"model": "classes", "label": -1}, "label"),
        ({"model": "digits", "options": {"steps": 3}}, "options.steps"),
        ({"model": "digits", "options": {"noise": 1}}, "options.noise"),
        ({"model": "digits", "options": {"generator": 1}}, "options.generator"),
        ({"model": "digits", "options": []}, "options"),
        ({"model": "digits", "n": 0}, "n"),
        ({"model": "digits", "n": 65}, "n"),
        ({"model": "digits", "format": "exe"}, "format"),
        ({"model": "letters", "options": {"temperature": -1}}, None),
    ],
)
def test_what_does_not_fit_is_refused(client, body, param):
    answer = client.post("/api/sample", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_walks(client, digits):
    found = post(client, "/api/interpolate", model="digits", n=2, steps=4, seed=3, format="values")
    with torch.no_grad():
        wanted = digits.interpolate(2, 4, generator=make_generator(3))
    assert torch.allclose(torch.stack([values(walk) for walk in found["walks"]]), wanted, atol=1e-6)


def test_encoding_then_decoding_is_reconstruction(client, digits):
    x = torch.rand(2, 1, 8, 8, generator=make_generator(0))
    x = (x * 16).round() / 16
    items = [{"values": each.tolist()} for each in x]
    z = post(client, "/api/encode", model="digits", items=items)["latents"]
    with torch.no_grad():
        assert torch.allclose(torch.tensor(z), digits.encode(x), atol=1e-6)
        wanted = digits.reconstruct(x)
    decoded = post(client, "/api/decode", model="digits", latents=z, format="values")["samples"]
    direct = post(client, "/api/reconstruct", model="digits", items=items, format="values")["samples"]
    assert torch.allclose(values(decoded), wanted, atol=1e-6)
    assert torch.allclose(values(direct), wanted, atol=1e-6)


def test_a_conditional_model_needs_labels(client):
    item = {"values": torch.zeros(1, 8, 8).tolist()}
    for path, body in (
        ("/api/encode", {}),
        ("/api/reconstruct", {"labels": [1, 2]}),
        ("/api/likelihood", {"labels": [10]}),
    ):
        answer = client.post(path, json={"model": "classes", "items": [item]} | body)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] in ("labels", "label")
    model = picture_model(conditional=True)
    found = post(client, "/api/encode", model="classes", items=[item], labels=[7])["latents"]
    with torch.no_grad():
        assert torch.allclose(torch.tensor(found), model.encode(torch.zeros(1, 1, 8, 8), torch.tensor([7])), atol=1e-6)


@pytest.mark.parametrize("latents", [[[0.0]], [[0.0] * 16, [0.0] * 15], [], [[]]])
def test_latents_of_another_size_are_refused(client, latents):
    assert client.post("/api/decode", json={"model": "digits", "latents": latents}).status_code == 400


def test_likelihoods(client, digits):
    x = torch.zeros(1, 1, 8, 8)
    torch.manual_seed(0)
    found = post(client, "/api/likelihood", model="digits", items=[{"values": x[0].tolist()}], k=50)["likelihoods"]
    with torch.no_grad():
        (wanted,) = digits.likelihoods(x, k=50)
    assert [(f["name"], f["kind"], f["exact"]) for f in found] == [(wanted.name, wanted.kind, False)]
    assert found[0]["log_likelihood"] == pytest.approx(wanted.value.tolist(), abs=3.0), "both are estimates"


def test_masks_are_filled(client):
    found = post(client, "/api/fill", model="masks", texts=["a[MASK]c", "x"], seed=5, options={"temperature": 0.5})
    assert found["texts"] == masked_model().fill(["a[MASK]c", "x"], seed=5, temperature=0.5)


def test_pictures_are_put_on_the_levels_of_the_space():
    """A PNG of the sampler, sent back, gives the same sample."""
    space = picture_model().spec.x
    x = torch.randint(space.levels, (3, *space.shape), generator=make_generator(0)) / (space.levels - 1)
    assert torch.allclose(from_items(space, to_items(space, x), Limits()), x)
    one = to_items(space, x)[0]
    url = Item(image=f"data:image/png;base64,{one.image}")
    assert torch.allclose(from_items(space, [url], Limits()), x[:1])


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"image": "a", "values": []},
        {"text": "a"},
        {"values": [0.5]},
        {"values": [[[2.0] * 8] * 8]},
        {"values": [[["a"] * 8] * 8]},
    ],
    ids=str,
)
def test_items_outside_the_space_are_refused(client, item):
    assert client.post("/api/encode", json={"model": "digits", "items": [item]}).status_code == 400


DENOISER = {"name": "mlp", "width": 16, "depth": 1}


def editing_model(channels=1):
    torch.manual_seed(0)
    spec = zoo.DataSpec(Space(channels, 8, 8, levels=17), Label(3))
    model = zoo.create_model("diffusion", data=spec, denoiser=DENOISER, conditional=True, label_dropout=0.1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.eval()


@pytest.fixture(scope="module")
def editors():
    models = {"grey": editing_model, "colour": lambda: editing_model(3)}
    with running(models) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def given(*shape, seed=0):
    return torch.randint(17, shape, generator=make_generator(seed)) / 16


def test_inpainting_is_that_of_the_model(editors):
    x, mask = given(1, 8, 8), torch.zeros(1, 8, 8)
    mask[:, 2:4] = 1
    asked = {"model": "grey", "item": {"values": x.tolist()}, "n": 2, "seed": 9, "label": 1, "format": "values"}
    asked["options"] = {"steps": 3}
    by_values = post(editors, "/api/inpaint", **asked, mask={"values": mask.tolist()})["samples"]
    white = to_items(Space(1, 8, 8), mask[None])[0].image
    assert post(editors, "/api/inpaint", **asked, mask={"image": white})["samples"] == by_values
    batch, noise = x.expand(2, 1, 8, 8), make_generator(9)
    wanted = editing_model().inpaint(batch, mask[None].bool(), condition=torch.tensor([1, 1]), generator=noise, steps=3)
    found = values(by_values)
    assert torch.allclose(found, wanted.detach(), atol=1e-5)
    kept = ~mask.bool().expand_as(found)
    assert torch.allclose(found[kept], batch[kept], atol=1e-5)
    assert not torch.allclose(found, batch, atol=1e-2), "and the rest is new"


def test_variations_colours_and_resolution_are_those_of_the_model(editors):
    grey, colour = editing_model(), editing_model(3)
    x, small, dull = given(1, 8, 8), given(1, 4, 4), given(1, 8, 8, seed=1)
    options = {"steps": 3}
    for path, model, name, item, extra in (
        ("edit", grey, "grey", x, {"strength": 0.3}),
        ("super_resolve", grey, "grey", small, {}),
        ("colorize", colour, "colour", dull, {}),
    ):
        body = {"model": name, "item": {"values": item.tolist()}, "n": 2, "seed": 4, "options": options | extra}
        found = values(post(editors, f"/api/{path}", **body, format="values")["samples"])
        batch = item.expand(2, *item.shape)
        wanted = getattr(model, path)(batch, generator=make_generator(4), **options, **extra).detach()
        assert torch.allclose(found, wanted, atol=1e-5), path


def test_changes_that_do_not_fit_are_refused(editors):
    item = {"values": given(1, 8, 8).tolist()}
    for path, body, param in (
        ("super_resolve", {"factor": 3}, "factor"),
        ("inpaint", {"mask": {"text": "a"}}, "mask"),
        ("inpaint", {"mask": {"values": [1]}}, "mask"),
        ("edit", {"options": {"strength": 2}}, None),
        ("edit", {"label": 3}, "label"),
        ("colorize", {}, "model"),
    ):
        answer = editors.post(f"/api/{path}", json={"model": "grey", "item": item} | body)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == param


def test_a_walk_between_given_samples(editors):
    ends = torch.stack([given(1, 8, 8), given(1, 8, 8, seed=1)])
    items = [{"values": x.tolist()} for x in ends]
    found = post(editors, "/api/interpolate", model="grey", between=items, steps=3, seed=2, label=1, format="values")
    label = torch.tensor([1])
    wanted = editing_model().interpolate(1, 3, between=ends, condition=label, generator=make_generator(2))
    assert torch.allclose(values(found["walks"][0]), wanted[0].detach(), atol=1e-5)
    assert editors.post("/api/interpolate", json={"model": "grey", "between": items, "n": 2}).status_code == 400
    options = editors.get("/api/models/grey").json()["details"]["options"]
    assert {option["name"] for option in options["edit"]} >= {"strength", "steps"}
    assert options["interpolate"] == []


def test_the_way_of_a_sample_ends_in_it(editors):
    body = {"model": "grey", "n": 2, "seed": 2, "label": 1, "options": {"steps": 3}}
    found = post(editors, "/api/denoising", **body, frames=4, format="values")["walks"]
    label = torch.full((2,), 1)
    wanted = editing_model().denoising(2, 4, condition=label, steps=3, generator=make_generator(2))
    assert torch.allclose(torch.stack([values(walk) for walk in found]), wanted.detach(), atol=1e-5)
    last = values(post(editors, "/api/sample", **body, format="values")["samples"])
    assert torch.allclose(values([walk[-1] for walk in found]), last, atol=1e-5)
    refused = editors.post("/api/denoising", json=body | {"options": {"nothing": 3}})
    assert refused.json()["error"]["param"] == "options.nothing"


def test_a_model_without_an_ability_says_what_it_has(client):
    for path, body in (
        ("/api/inpaint", {"item": {"values": [1]}, "mask": {"values": [1]}}),
        ("/api/interpolate", {}),
        ("/api/denoising", {}),
        ("/api/fill", {"texts": ["a"]}),
        ("/api/encode", {"items": [{"values": [1]}]}),
    ):
        answer = client.post(path, json={"model": "letters"} | body)
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "unsupported"
        assert "generate" in answer.json()["error"]["message"]


def test_descriptions_are_enough_to_draw_controls(client):
    found = {m["id"]: m["details"] for m in client.get("/api/models").json()["models"]}
    assert found.keys() == MODELS.keys()
    classes = found["classes"]
    assert classes["space"] == {
        "space": "image",
        "channels": 1,
        "height": 8,
        "width": 8,
        "levels": 17,
        "shape": [1, 8, 8],
    }
    assert classes["condition"]["n_classes"] == 10
    assert classes["conditional"]
    (noise,) = classes["options"]["sample"]
    assert (noise["name"], noise["type"], noise["default"]) == ("noise", "bool", False)
    letters = found["letters"]
    assert letters["context"] == letters["space"]["length"]
    assert letters["chat_template"] == "plain"
    assert "tokenizer" not in letters["space"]
    temperature = next(o for o in letters["options"]["generate"] if o["name"] == "temperature")
    assert temperature["type"] == "float"
    assert found["masks"]["abilities"]["fill"]
    assert client.get("/api/models/points").json()["details"] == found["points"]
    assert client.get("/api/models/nothing").status_code == 404
