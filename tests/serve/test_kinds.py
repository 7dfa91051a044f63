"""Models of tables, music, words and pictures with captions over HTTP."""

import base64
import io
import wave

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from tests.serve.servers import get, is_error, picture_model, post, running
from zoo.core.spaces import Video
from zoo.data.loader import make_generator
from zoo.data.table.rows import to_csv
from zoo.data.video.video_file import read_video
from zoo.viz.animation import Animation, gif, gif_rate
from zoo.viz.render import is_heard, renderer_of

NOTES = "sD5 aA4 tF4 bD3\nsD5 aA4 tF4 bD3\n"


def make(name, data, **settings):
    torch.manual_seed(0)
    return zoo.create_model(name, data=data, **settings).eval()


CLIPS = zoo.DataSpec(Video(4, 1, 9, 8, levels=17), name="clips")


def table():
    data = zoo.create_data("synthetic_table")
    return zoo.fit(zoo.create_model("tvae", data=data), data, max_steps=2, progress=False)


@pytest.fixture(scope="module")
def models():
    return {
        "rows": table(),
        "notes": make("ngram", "synthetic_chorales", order=2),
        "clip": make("clip", "captioned_shapes"),
        "digits": picture_model(),
        "clips": make("vae", CLIPS),
    }


@pytest.fixture(scope="module")
def server(models):
    with running({name: lambda model=model: model for name, model in models.items()}) as found:
        yield found


def ask(server, path, **body):
    answer = post(f"{server.url}{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_rows_have_the_fields_of_the_csv_file(server, models):
    samples = ask(server, "/api/sample", model="rows", n=20, seed=1)["samples"]
    with torch.no_grad():
        x = models["rows"].sample(20, generator=make_generator(1))
    lines = [",".join(samples[0]["row"]), *(",".join(item["row"].values()) for item in samples)]
    assert lines == to_csv(models["rows"].spec.x, x).splitlines()
    assert any(item["row"]["region"] in ("east", "north", "south", "west") for item in samples)
    values = ask(server, "/api/sample", model="rows", n=20, seed=1, format="values")["samples"]
    assert torch.allclose(torch.tensor([item["values"] for item in values]), x)


def test_music_is_that_of_the_renderer(server, models):
    found = ask(server, "/api/listen", model="notes", texts=[NOTES, "sC4"])
    renderer, tokens = renderer_of(models["notes"].spec.x), models["notes"].tokenizer.encode(NOTES)
    x = torch.tensor(tokens)
    with wave.open(io.BytesIO(base64.b64decode(found["audio"][0]["audio"]))) as file:
        played = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
        sound = renderer.sound(x[None])
        assert file.getframerate() == sound.rate
    assert np.abs(played - sound.wave[0].clamp(-1, 1).numpy()).max() < 1e-4
    assert np.abs(played).max() > 0.01, "it is not silent"
    picture = Image.open(io.BytesIO(base64.b64decode(found["pictures"][0]["image"])))
    assert np.array_equal(np.asarray(picture), renderer.single(x))
    assert found["audio"][1] != found["audio"][0]


def test_videos_are_gifs_in_both_directions(server, models):
    body = {"model": "clips", "n": 3, "seed": 1}
    samples = ask(server, "/api/sample", **body)["samples"]
    with torch.no_grad():
        x = (models["clips"].sample(3, generator=make_generator(1)) * 16).round() / 16
    for item, one in zip(samples, x, strict=True):
        found = read_video(io.BytesIO(base64.b64decode(item["video"])), (9, 8), 1, gif_rate(8)) / 255
        assert torch.allclose((found * 16).round() / 16, one, atol=0.07)
    one, two = (
        torch.tensor(ask(server, "/api/encode", model="clips", items=items)["latents"])
        for items in (samples, [{"values": each.tolist()} for each in x])
    )
    assert torch.allclose(one, two, atol=0.05)
    url = f"{server.url}/api/encode"
    short = base64.b64encode(gif(Animation(np.zeros((1, 9, 8, 3), np.uint8), 8), pause=0)).decode()
    assert "1 frames" in is_error(post(url, json={"model": "clips", "items": [{"video": short}]}), 400)["message"]
    bad = base64.b64encode(b"GIF89a").decode()
    assert "not a video" in is_error(post(url, json={"model": "clips", "items": [{"video": bad}]}), 400)["message"]
    assert is_error(post(url, json={"model": "digits", "items": [{"video": short}]}), 400)


def test_what_is_not_heard_is_refused(server, models):
    url = f"{server.url}/api/listen"
    assert is_error(post(url, json={"model": "digits", "texts": ["x"]}), 400)["code"] == "unsupported"
    assert "not a note" in is_error(post(url, json={"model": "notes", "texts": ["hello"]}), 400)["message"]
    assert is_error(post(url, json={"model": "notes", "texts": [""]}), 400)["param"] == "texts"
    assert is_error(post(url, json={"model": "notes", "texts": [NOTES * 600]}), 400)["param"] == "texts"
    assert [is_heard(models[name].spec.x) for name in ("notes", "digits", "rows")] == [True, False, False]


def test_captions_are_embedded(server, models):
    texts = ["a red circle", "a blue square"]
    data = ask(server, "/v1/embeddings", model="clip", input=texts)["data"]
    with torch.no_grad():
        wanted = models["clip"].embed(texts)
    assert torch.allclose(torch.tensor([each["embedding"] for each in data]), wanted, atol=1e-6)
    details = ask_details(server, "clip")
    assert details["tokens"]
    assert not details["heard"]


def ask_details(server, name):
    return get(f"{server.url}/api/models/{name}").json()["details"]


def test_rows_are_not_uploaded(server):
    body = {"model": "rows", "items": [{"row": {"region": "east"}}]}
    assert "Send an image or values" in is_error(post(f"{server.url}/api/encode", json=body), 400)["message"]
