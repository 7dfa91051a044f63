"""The page for models that take a text, a picture, a series, items, cells or a video."""

import csv
import io

import httpx2 as httpx
import pytest
from PIL import Image as Pillow

from tests.serve.browser import NEEDED
from tests.serve.given_models import GIVEN, prompted_model
from tests.serve.servers import running

pytestmark = NEEDED


@pytest.fixture(scope="module")
def models():
    return {name: make() for name, make in (GIVEN | {"prompted": prompted_model}).items()}


@pytest.fixture(scope="module")
def server(models):
    with running({name: lambda model=model: model for name, model in models.items()}) as found:
        yield found


def ask(server, path, **body):
    answer = httpx.post(f"{server.url}{path}", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def cells(page, css):
    rows = page.all(f"{css} tbody tr")
    return [[cell.text for cell in row.find_elements("css selector", "th, td")] for row in rows]


def sources(samples):
    return [f"data:image/png;base64,{item['image']}" for item in samples]


def white(page, board=0):
    """Upload a white picture to a board; the picture that the page sends."""
    file = io.BytesIO()
    Pillow.new("RGB", (40, 30), "white").save(file, "PNG")
    path = page.files / "white.png"
    path.write_bytes(file.getvalue())
    page.all("#controls .paint input[type='file']")[board].send_keys(str(path))
    page.wait(lambda: "white.png" in page.text("#status"))
    script = "return document.querySelectorAll('.board canvas.pixels')[arguments[0]].toDataURL().split(',')[1]"
    return {"image": page.run(script, board)}


@pytest.fixture
def page(page, folder):
    page.files = folder
    return page


def test_samples_are_described_by_a_prompt(page, server):
    page.open("#model=prompted&task=sample&seed=3&n=2&prompt=a+three")
    asked = {"model": "prompted", "n": 2, "seed": 3}
    found = sources(ask(server, "/api/sample", **asked, prompt="a three")["samples"])
    assert page.pictures() == found
    page.fill("prompt", "zero")
    page.go()
    assert page.pictures() == sources(ask(server, "/api/sample", **asked, prompt="zero")["samples"]) != found
    assert "prompt=zero" in page.run("return location.hash")
    page.fill("prompt", "a text of far too many words")
    page.go()
    assert "more than 3" in page.text("#result .error")
    assert any("400" in message for message in page.errors()), "Chromium reports the refused request itself"
    page.open("#model=prompted&task=denoising&seed=3&n=2&frames=3&prompt=a+three")
    assert page.pictures()[2::3] == found, "the last estimates are the samples"


def test_a_picture_is_described(page, server):
    page.open("#model=captions")
    assert [tab.text for tab in page.all("#tabs button")] == ["Caption"]
    page.one("#controls summary").click()
    page.fill("temperature", 1)
    page.fill("n", 3)
    page.fill("seed", 4)
    item = white(page)
    page.go()
    asked = {"model": "captions", "item": item, "n": 3, "seed": 4, "options": {"temperature": 1}}
    shown = page.run("return [...document.querySelectorAll('#result pre')].map((each) => each.textContent)")
    assert shown == ask(server, "/api/caption", **asked)["texts"]


def test_questions_are_answered(page, server):
    page.open("#model=answers")
    page.go()
    assert "none" in page.text("#result .error")
    item = white(page)
    questions = ["what shape is the red object", "is the blue object on the left"]
    page.fill("questions", "\n".join(questions))
    page.go()
    answers = ask(server, "/api/answer", model="answers", item=item, questions=questions)["answers"]
    assert cells(page, ".answers") == [list(pair) for pair in zip(questions, answers, strict=True)]


def test_pictures_are_translated_and_restyled(page, server):
    page.open("#model=pairs")
    item = white(page)
    page.go()
    assert page.pictures() == sources(ask(server, "/api/translate", model="pairs", item=item)["samples"])
    page.open("#model=domains")
    page.one("#controls summary").click()
    page.one("#controls [name='reverse']").click()
    item = white(page)
    page.go()
    asked = {"model": "domains", "item": item, "options": {"reverse": True}}
    assert page.pictures() == sources(ask(server, "/api/translate", **asked)["samples"])
    page.open("#model=styles")
    assert page.count("#controls .board") == 2
    item = {"image": page.run("return document.querySelector('.board canvas.pixels').toDataURL().split(',')[1]")}
    style = white(page, 1)
    page.go()
    assert page.pictures() == sources(ask(server, "/api/stylize", model="styles", item=item, style=style)["samples"])


def test_a_series_is_continued(page, server, folder):
    page.open("#model=seasons&task=forecast&seed=2&horizon=3")
    page.go()
    assert "empty" in page.text("#result .error")
    page.fill("series", "level,flow\n1,2\n2,\n3,1\n4,0\n2,2")
    page.go()
    history = [[1, 2], [2, None], [3, 1], [4, 0], [2, 2]]
    found = ask(server, "/api/forecast", model="seasons", history=history, horizon=3, seed=2)
    assert page.count(".fan") == 2
    assert page.count(".fan .band") == 2
    page.click("Download CSV")
    file = folder / "seasons-forecast.csv"
    page.wait(file.exists)
    heading, *rows = csv.reader(io.StringIO(file.read_text()))
    assert heading[:3] == ["step", "level", "level_0.1"]
    assert [float(row[1]) for row in rows] == pytest.approx([mean[0] for mean in found["mean"]])
    page.click("Clear drawing")
    sketch = page.one(".sketch")
    sketch.click()
    drawn = page.run("return document.querySelector('#controls [name=series]').value").split("\n")
    assert len(drawn) == 8, "the steps that the model reads"
    sketch.send_keys("\ue013")  # up, by keyboard
    assert page.run("return document.querySelector('#controls [name=series]').value").split("\n") != drawn
    page.fill("series", "1,x\n2,y")
    page.go()
    assert "not a number" in page.text("#result .error")


def test_items_are_recommended(page, server):
    page.open("#model=films&task=recommend&k=3")
    page.go()
    assert "none" in page.text("#result .error")
    page.one("#controls .adder input").send_keys("Alien\t")
    assert page.run("return document.querySelector('#controls [name=items]').value") == "Alien"
    page.go()
    found = ask(server, "/api/recommend", model="films", items=["Alien"], k=3)["items"]
    assert [row[1] for row in cells(page, ".recommended")] == [each["item"] for each in found]


def test_rows_with_given_cells(page, server):
    page.open("#model=cells&task=impute&seed=5&n=4")
    assert page.count("#controls [name^='cell-']") == 3, "keys are not learned"
    page.select("#controls [name='cell-colour']", "red")
    page.fill("cell-size", "1.250")
    page.go()
    asked = {"model": "cells", "row": {"colour": "red", "size": "1.250"}, "n": 4, "seed": 5}
    found = ask(server, "/api/impute", **asked)["samples"]
    assert cells(page, ".table") == [list(item["row"].values()) for item in found]
    assert "cell-colour=red" in page.run("return location.hash")


def test_a_video_is_continued(page, server):
    page.open("#model=clips&task=frames&seed=7&n=2&frames=1&steps=2")
    page.go()
    item = ask(server, "/api/sample", model="clips", seed=7)["samples"][0]
    found = ask(server, "/api/predict_frames", model="clips", item=item, frames=1, n=2, seed=7, options={"steps": 2})[
        "samples"
    ]
    assert page.pictures() == [f"data:image/gif;base64,{each['video']}" for each in found]
    page.open("#model=clips&task=sample&seed=4&n=3")
    page.all("#result .tile")[0].click()
    page.click("Continue", "#result .picks")
    page.fill("steps", 2)
    page.go()
    assert page.count("#result .tile") == 4
