"""Answers about given data, and changes of it: those of the models and of the command line."""

import base64
import io

import pytest
import torch

from tests.data.table.examples import SPEC as TABLE
from tests.serve.given_models import FILMS, GIVEN
from tests.serve.servers import get, is_error, post, running
from zoo.data.loader import make_generator
from zoo.data.table.rows import encoded_cells, to_csv
from zoo.data.video.video_file import read_video
from zoo.serve.media import to_items


@pytest.fixture(scope="module")
def models():
    return {name: make() for name, make in GIVEN.items()}


@pytest.fixture(scope="module")
def server(models):
    with running({name: lambda model=model: model for name, model in models.items()}) as found:
        yield found


def ask(server, path, **body):
    answer = post(f"{server.url}{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(server, path, **body):
    return is_error(post(f"{server.url}{path}", json=body), 400)


def numbers(items):
    return torch.tensor([item["values"] for item in items])


def picture(space, seed=0):
    """A picture of a space on its levels, (1, *shape)."""
    levels = space.levels - 1
    return (torch.rand(1, *space.shape, generator=make_generator(seed)) * levels).round() / levels


def sent(x):
    return {"values": x[0].tolist()}


# -- pictures --------------------------------------------------------------------------------------------------------


def test_captions_are_those_of_the_model(server, models):
    model = models["captions"]
    x = picture(model.spec.x)
    body = {"model": "captions", "item": sent(x), "n": 3, "seed": 4, "options": {"temperature": 1.0}}
    wanted = model.caption(x.expand(3, *x.shape[1:]), generator=make_generator(4), temperature=1.0)
    assert ask(server, "/api/caption", **body)["texts"] == wanted
    assert len(set(wanted)) > 1, "each is drawn"
    assert ask(server, "/api/caption", **body | {"seed": 5})["texts"] != wanted, "the control: another seed"
    as_png = to_items(model.spec.x, x)[0].image
    assert ask(server, "/api/caption", **body | {"item": {"image": as_png}})["texts"] == wanted
    assert refused(server, "/api/caption", **body | {"options": {"nothing": 1}})["param"] == "options.nothing"
    assert refused(server, "/api/caption", **body | {"item": {"text": "a"}})["param"] == "item[0]"


def test_answers_are_those_of_the_model(server, models):
    model = models["answers"]
    x, questions = picture(model.spec.x), ["what shape is the red object", "is the blue object on the left"]
    body = {"model": "answers", "item": sent(x)}
    (wanted,) = model.answer(x, questions)
    assert ask(server, "/api/answer", **body, questions=questions)["answers"] == wanted
    assert ask(server, "/api/answer", **body, questions=questions[::-1])["answers"] == wanted[::-1]
    assert "more than" in refused(server, "/api/answer", **body, questions=["a " * 100])["message"]
    assert "empty" in refused(server, "/api/answer", **body, questions=[" "])["message"]
    assert refused(server, "/api/answer", **body, questions=[])["code"] == "too_short"


@pytest.mark.parametrize(("name", "reverse"), [("pairs", False), ("domains", False), ("domains", True)])
def test_translations_are_those_of_the_model(server, models, name, reverse):
    model = models[name]
    given = {"reverse": True} if reverse else {}
    x = picture(model.source_space(**given))
    body = {"model": name, "item": sent(x), "options": given, "seed": 1, "format": "values"}
    wanted = model.translate(x, generator=make_generator(1), **given)
    found = ask(server, "/api/translate", **body)
    assert torch.allclose(numbers(found["samples"]), wanted, atol=1e-5)
    assert wanted.shape[1:] == (model.source_space() if reverse else model.spec.x).shape
    other = picture(model.source_space(**given), 1)
    changed = numbers(ask(server, "/api/translate", **body | {"item": sent(other)})["samples"])
    assert not torch.allclose(changed, wanted, atol=1e-3), "the control: another picture"
    shown = ask(server, "/api/translate", **body | {"format": "auto", "n": 2})["samples"]
    assert len(shown) == 2
    assert shown[0]["image"] == to_items(model.spec.x, wanted)[0].image


def test_styles_are_those_of_the_model(server, models):
    model = models["styles"]
    x, style = picture(model.spec.x), picture(model.spec.x, 1)
    body = {"model": "styles", "item": sent(x), "style": sent(style), "format": "values"}
    wanted = model.stylize(x, style).detach()
    assert torch.allclose(numbers(ask(server, "/api/stylize", **body)["samples"]), wanted, atol=1e-5)
    slow = ask(server, "/api/stylize", **body, seed=1, options={"method": "gatys", "steps": 2})["samples"]
    by_pixels = model.stylize(x, style, generator=make_generator(1), method="gatys", steps=2).detach()
    assert torch.allclose(numbers(slow), by_pixels, atol=1e-5), "it takes gradients"
    assert not torch.allclose(by_pixels, wanted, atol=1e-3)
    assert refused(server, "/api/stylize", **body | {"style": {"values": [1]}})["param"] == "style[0]"


# -- series, items, rows ---------------------------------------------------------------------------------------------


def test_forecasts_are_those_of_the_model(server, models):
    model = models["seasons"]
    past = torch.rand(20, 2, generator=make_generator(0))
    body = {"model": "seasons", "history": past.tolist(), "horizon": 5, "n": 50, "seed": 3}
    found = ask(server, "/api/forecast", **body, quantiles=[0.5, 0.1])
    paths = model.forecast(past[None, -8:], 5, 50, generator=make_generator(3, 0))[0]
    assert torch.allclose(torch.tensor(found["mean"]), paths.mean(0), atol=1e-5)
    assert [each["level"] for each in found["quantiles"]] == [0.1, 0.5]
    for each in found["quantiles"]:
        wanted = torch.quantile(paths, each["level"], dim=0)
        assert torch.allclose(torch.tensor(each["values"]), wanted, atol=1e-5)
    assert found["columns"] == ["level", "flow"]


def test_a_forecast_is_the_season_before(server):
    """The closed form of the model: the value of one period before, plus normal noise of variance 1 per period."""
    past = torch.arange(16).view(8, 2).float() * 10
    found = ask(server, "/api/forecast", model="seasons", history=past.tolist(), n=1000, seed=1)
    mean = torch.tensor(found["mean"])
    assert torch.allclose(mean, past[-4:], atol=5 / 1000**0.5)
    low, middle, high = (torch.tensor(each["values"]) for each in found["quantiles"])
    assert (low < middle).all()
    assert torch.allclose(high - low, torch.tensor(2 * 1.2816), atol=0.35), "a normal distribution's 80 %"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"history": [[1.0]]}, "history"),
        ({"history": []}, "history"),
        ({"history": [["a", 1]]}, "history"),
        ({"quantiles": [1.0]}, "quantiles[0]"),
        ({"covariates": [[1.0]]}, "covariates"),
        ({"n": 1}, "n"),
        ({"horizon": 1001}, "horizon"),
    ],
)
def test_forecasts_that_do_not_fit_are_refused(server, change, param):
    body = {"model": "seasons", "history": [[1.0, 2.0]] * 6}
    assert refused(server, "/api/forecast", **body | change)["param"] == param


def test_items_are_recommended(server, models):
    found = ask(server, "/api/recommend", model="films", items=["Alien", "Brazil"], k=3)["items"]
    wanted = models["films"].recommend(["Alien", "Brazil"], 3)
    assert [each["item"] for each in found] == [name for name, _ in wanted]
    assert [each["score"] for each in found] == pytest.approx([score for _, score in wanted])
    assert found[0]["item"] == "Casablanca", "the third of those that are chosen together"
    assert ask(server, "/api/recommend", model="films", items=["Fargo"], k=1)["items"][0]["item"] in FILMS[3:5]
    assert "did you mean 'Alien'" in refused(server, "/api/recommend", model="films", items=["Alian"])["message"]
    assert refused(server, "/api/recommend", model="films", items=[])["param"] == "items"


def test_given_cells_are_kept(server, models):
    row = {"colour": "red", "size": "1.250"}
    body = {"model": "cells", "row": row, "n": 20, "seed": 2}
    samples = ask(server, "/api/impute", **body)["samples"]
    x, mask = encoded_cells(TABLE.x, row)
    drawn = models["cells"].inpaint(x.expand(20, -1), mask, generator=make_generator(2))
    lines = [",".join(samples[0]["row"]), *(",".join(item["row"].values()) for item in samples)]
    assert lines == to_csv(TABLE.x, drawn).splitlines()
    assert {(item["row"]["colour"], item["row"]["size"]) for item in samples} == {("red", "1.250")}
    assert len({item["row"]["count"] for item in samples}) > 1, "the other column is drawn"
    missing = ask(server, "/api/impute", **body | {"row": {"colour": ""}})["samples"]
    assert {item["row"]["colour"] for item in missing} == {""}
    free = ask(server, "/api/impute", **body | {"row": {}})["samples"]
    assert len({item["row"]["colour"] for item in free}) > 1, "the control: nothing is given"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"color": "red"}, "did you mean 'colour'"),
        ({"colour": "green"}, "unknown value of colour"),
        ({"id": "3"}, "unknown learned column"),
        ({"size": "9"}, "not within the training data"),
        ({"size": "big"}, "not within the training data"),
        ({"count": ""}, "no value is missing"),
        ({"count": 3}, "must be text"),
    ],
)
def test_cells_that_do_not_fit_are_refused(server, row, words):
    assert words in refused(server, "/api/impute", model="cells", row=row)["message"]


# -- videos ----------------------------------------------------------------------------------------------------------


def test_videos_are_continued(server, models):
    model = models["clips"]
    x = picture(model.spec.x)
    clip = {"values": x[0, :2].tolist()}
    body = {"model": "clips", "item": clip, "frames": 2, "n": 2, "seed": 6, "options": {"steps": 2}}
    found = numbers(ask(server, "/api/predict_frames", **body, format="values")["samples"])
    wanted = model.predict_frames(x[:, :2].expand(2, -1, -1, -1, -1), generator=make_generator(6), steps=2).detach()
    assert torch.allclose(found, wanted, atol=1e-5)
    assert torch.allclose(found[:, :2], x[:, :2].expand(2, -1, -1, -1, -1), atol=1e-5)
    assert not torch.allclose(found[0, 2], found[1, 2], atol=1e-3), "each has its own noise"
    shown = ask(server, "/api/predict_frames", **body)["samples"][0]["video"]
    again = ask(server, "/api/predict_frames", **body | {"item": {"video": shown}}, format="values")["samples"]
    assert torch.allclose(numbers(again)[:, :2], found[:1, :2].expand(2, -1, -1, -1, -1), atol=0.5 / 255 + 1e-3)
    assert len(read_video(io.BytesIO(base64.b64decode(shown)), (10, 10), 1)) == 3
    assert refused(server, "/api/predict_frames", **body | {"frames": 3})["param"] == "frames"
    assert refused(server, "/api/predict_frames", **body | {"frames": 1})["param"] == "item[0]"


def test_models_without_the_ability_are_refused(server):
    item = {"values": [1]}
    for path, body in (
        ("caption", {"item": item}),
        ("answer", {"item": item, "questions": ["a"]}),
        ("translate", {"item": item}),
        ("stylize", {"item": item, "style": item}),
        ("forecast", {"history": [[1.0]]}),
        ("recommend", {"items": ["a"]}),
        ("predict_frames", {"item": item}),
    ):
        assert refused(server, f"/api/{path}", model="cells", **body)["code"] == "unsupported", path
    assert refused(server, "/api/impute", model="films", row={})["code"] == "unsupported"


def test_descriptions_have_the_pictures_that_are_translated(server):
    models = {m["id"]: m["details"] for m in get(f"{server.url}/api/models").json()["models"]}
    assert models["pairs"]["source"]["shape"] == [1, 8, 8]
    assert models["styles"]["source"] is None
    assert [option["name"] for option in models["domains"]["options"]["translate"]] == ["reverse"]
