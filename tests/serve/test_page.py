"""The page of `zoo serve` in Chromium: every control is used, and the console stays empty."""

import base64
import csv
import io
import math
import wave
import zipfile
from pathlib import Path

import httpx2 as httpx
import pytest
import torch
from PIL import Image as Pillow
from selenium.webdriver.common.keys import Keys as Press

from tests.serve.browser import NEEDED, Page
from tests.serve.given_models import video_model
from tests.serve.page_models import PAGE_TASKS
from tests.serve.servers import masked_model, running
from zoo.retrieval.build import build_index
from zoo.serve.feedback import FeedbackStore
from zoo.serve.keys import Keys, digest

pytestmark = NEEDED


@pytest.fixture(scope="session")
def server(page_models, folder):
    with running(page_models, feedback=folder / "feedback.sqlite") as found:
        yield found


def wait_for_file(page: Page, folder: Path, name: str) -> Path:
    page.wait(lambda: (folder / name).exists())
    return folder / name


# -- pictures --------------------------------------------------------------------------------------------------------


def test_samples_are_those_of_the_api(page, server):
    page.open("#model=digits&task=sample&seed=7&n=5&label=3")
    asked = {"model": "digits", "n": 5, "label": 3, "seed": 7, "options": {}}
    found = httpx.post(f"{server.url}/api/sample", json=asked, timeout=60).json()["samples"]
    assert page.pictures() == [f"data:image/png;base64,{item['image']}" for item in found]
    assert page.count("#result .grid > button.tile") == 5
    assert page.text("#status") == "digits: 5 samples"
    first = page.pictures()
    page.go()
    assert page.pictures() == first, "a link keeps the seed"
    page.choose("label", "4")
    page.fill("n", 6)
    page.one("summary").click()
    page.one("#controls [name='noise']").click()
    page.go()
    assert page.count("#result .tile") == 6
    link = page.run("return location.hash")
    assert all(part in link for part in ("model=digits", "task=sample", "label=4", "n=6", "noise=true", "seed=7"))
    changed = page.pictures()
    page.open(link)
    assert page.pictures() == changed, "the link shows the same samples"
    page.one("#controls [name='keep']").click()
    page.go()
    assert page.pictures() != changed, "without it each run has a new seed"


def test_videos_are_saved(driver, folder):
    """Several in one ZIP file, one as it is: browsers ask before a page saves several files."""
    model = video_model()
    with running({"clips": lambda: model}) as server:
        page = Page(driver, server.url)
        page.errors()  # those of an earlier test
        for n in (3, 1):
            page.open(f"#model=clips&task=sample&seed=4{n}&n={n}")
            shown = [base64.b64decode(source.partition(",")[2]) for source in page.pictures()]
            page.click("Download")
            file = wait_for_file(page, folder, f"clips-4{n}.{'zip' if n > 1 else 'gif'}")
            if n == 1:
                assert [file.read_bytes()] == shown
                continue
            with zipfile.ZipFile(file) as found:
                assert found.testzip() is None, "all checksums are right"
                assert found.namelist() == [f"clips-43-{i}.gif" for i in (1, 2, 3)]
                assert [found.read(name) for name in found.namelist()] == shown
        assert page.errors() == []


def test_cosines_and_several_sounds_are_saved(page, folder):
    page.open("#model=words&task=similarity")
    page.fill("texts", "a\nb\na, b")
    page.go()
    shown = [[cell.text for cell in row.find_elements("css selector", "td")] for row in page.all(".cosines tbody tr")]
    page.click("Download CSV")
    saved = list(csv.reader(io.StringIO(wait_for_file(page, folder, "words.csv").read_text())))
    assert saved[0] == ["", "a", "b", "a, b"]
    assert [row[0] for row in saved[1:]] == saved[0][1:]
    assert [[f"{float(value):.2f}" for value in row[1:]] for row in saved[1:]] == shown
    page.open("#model=tones&n=2&seed=9")
    for number in (1, 2):
        page.click(f"Download Sample {number}")
        with wave.open(str(wait_for_file(page, folder, f"tones-9-{number}.wav"))) as file:
            assert file.getnframes() == 800


def test_videos_are_seen(driver):
    """The browser decodes each GIF: its natural size is that of the model, and it has frames that differ."""
    model = video_model()
    with running({"clips": lambda: model}) as server:
        page = Page(driver, server.url)
        page.errors()  # those of an earlier test
        page.open("#model=clips&task=sample&seed=4&n=3")
        page.wait(lambda: page.run("return [...document.querySelectorAll('#result img')].every((i) => i.complete)"))
        seen = page.run("return [...document.querySelectorAll('#result img')].map((i) => [i.naturalWidth, i.width])")
        assert [natural for natural, _ in seen] == [10, 10, 10]
        assert all(shown > 10 for _, shown in seen)
        for source in page.pictures():
            kind, _, data = source.partition(",")
            video = Pillow.open(io.BytesIO(base64.b64decode(data)))
            assert kind == "data:image/gif;base64"
            assert video.n_frames == 3
        assert page.count("#result .picks button") == 0, "nothing is picked"
        page.all("#result .tile")[0].click()
        assert [b.text for b in page.all("#result .picks button")] == ["Continue"], "videos are not edited here"
        page.run("document.querySelector('#result img').src = 'data:image/gif;base64,AAAA'")  # the control
        page.wait(lambda: page.run("return document.querySelector('#result img').complete"))
        assert page.run("return document.querySelector('#result img').naturalWidth") == 0
        assert page.errors() == []


def test_pictures_are_saved(page, folder):
    page.open("#model=digits&task=sample&seed=8&n=4")
    page.click("Download")
    assert Pillow.open(wait_for_file(page, folder, "digits-8.png")).size == (17, 17)


def test_picked_samples_go_on_to_other_tasks(page):
    page.open("#model=digits&task=sample&seed=1&n=4")
    tiles = page.all("#result .tile")
    assert page.count("#result .picks button") == 0
    tiles[0].click()
    assert [b.text for b in page.all("#result .picks button")] == ["Latents", "Edit"]
    tiles[2].click()
    assert [b.text for b in page.all("#result .picks button")] == ["Interpolate"]
    assert [t.get_attribute("aria-pressed") for t in tiles] == ["true", "false", "true", "false"]
    ends = page.pictures()[0], page.pictures()[2]
    page.click("Interpolate", "#result .picks")
    page.settled()
    assert page.count("#result .tile") == 8, "one walk between the two"
    assert page.run("return [...document.querySelectorAll('.ends img')].map((i) => i.src)") == list(ends)
    page.fill("steps", 5)
    page.choose("label", "2")
    page.go()
    assert page.count("#result .tile") == 5
    page.click("Clear picks")
    page.fill("n", 2)
    page.go()
    assert page.count("#result .tile") == 10, "two walks between random samples"
    page.open("#model=gan&task=interpolate&seed=1")
    page.one("summary").click()
    page.select("#controls [name='path']", "linear")
    page.go()
    assert page.count("#result .tile") == 32


def test_latents_are_explored_by_sliders(page):
    page.open("#model=digits&task=latents&seed=2")
    assert page.count(".slider") == 16, "the first page of 20"
    before = page.pictures()
    move = "const s = document.querySelector('.slider input'); s.value = 3; s.dispatchEvent(new Event('input'))"
    page.run(move)
    page.wait(lambda: page.pictures() not in ([], before))
    assert page.text(".slider output") == "3.00"
    page.click("Reset")
    page.wait(lambda: page.pictures() == before)
    page.click("More latents")
    assert page.count(".slider") == 4
    page.choose("label", "5")
    page.go()
    assert page.count("#result .tile") == 1


def test_a_drawn_picture_is_reconstructed_scored_varied_and_inpainted(page, tmp_path):
    page.open("#model=digits&task=edit")
    board = page.one(".board")
    board.click()
    drawn = page.run("return document.querySelector('.board canvas').toDataURL()")
    board.send_keys(Press.ARROW_LEFT, Press.SPACE)
    assert page.run("return document.querySelector('.board canvas').toDataURL()") != drawn, "by keyboard too"
    assert page.text("#status").startswith("Painted column")
    page.go()
    assert page.count("#result .tile") == 2
    page.choose("action", "Score")
    page.go()
    (value,) = [float(cell.text) for cell in page.all("#result td:last-child")]
    assert math.isfinite(value)
    page.choose("tool", "Erase")
    page.fill("brush", 4)
    board.click()
    page.click("Clear")
    assert page.run(INK, ".board canvas") == 0
    file = tmp_path / "white.png"
    Pillow.new("RGB", (30, 20), "white").save(file)
    page.one("input[type='file']").send_keys(str(file))
    page.wait(lambda: page.run(INK, ".board canvas") == 64)
    (tmp_path / "no.png").write_text("no picture")
    page.one("input[type='file']").send_keys(str(tmp_path / "no.png"))
    page.wait(lambda: "not a picture" in page.text("#status"))

    page.open("#model=noise&task=edit&n=2")
    page.choose("action", "Vary")
    page.go()
    assert page.count("#result .tile") == 2
    page.choose("action", "Inpaint")
    page.go()
    assert "Mask: empty" in page.text("#result .error")
    page.choose("tool", "Mask")
    page.one(".board").click()
    page.one("summary").click()
    page.fill("steps", 3)
    page.go()
    assert page.count("#result .tile") == 2
    assert page.run(INK, ".board .mask") > 0
    page.choose("action", "Super-resolve")
    page.go()
    assert page.count("#result .tile") == 2
    page.click("Clear mask")
    assert page.run(INK, ".board .mask") == 0


INK = """
const canvas = document.querySelector(arguments[0]);
const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
let n = 0;
for (let i = 0; i < data.length; i += 4) n += data[i] > 127 && data[i + 3] > 127;
return n;
"""  # number of bright pixels


def test_a_sampler_is_shown_step_by_step(page):
    page.open("#model=noise&task=steps&rows=2&list=1,3")
    assert [e.text for e in page.all("#result .head span")] == ["1", "3"]
    assert page.count("#result .tile") == 4
    page.fill("list", "")
    page.go()
    assert "none" in page.text("#result .error")


def test_the_way_of_a_sample_is_a_strip(page):
    page.open("#model=noise&task=denoising&n=2&frames=3&seed=4")
    assert page.count("#result .tile") == 6
    strips = page.pictures()
    asked = {"model": "noise", "n": 2, "seed": 4}
    found = httpx.post(f"{page.url}/api/sample", json=asked, timeout=60).json()["samples"]
    assert strips[2::3] == [f"data:image/png;base64,{item['image']}" for item in found]


def test_vectors_are_a_plot_and_a_table(page, folder):
    page.open("#model=moons&task=sample&seed=5&n=70")
    assert page.count(".plot circle") == 70, "two requests"
    page.run("document.querySelectorAll('.plot circle')[3].dispatchEvent(new Event('click'))")
    assert page.count(".plot .picked") == 1
    page.one(".table summary").click()
    assert page.count(".table tbody tr") == 8
    page.click("Download CSV")
    rows = list(csv.reader(io.StringIO(wait_for_file(page, folder, "moons-5.csv").read_text())))
    assert rows[0] == ["x1", "x2"]
    assert len(rows) == 71
    page.tab("Interpolate")
    assert page.count(".plot .walk") == 4


def test_sound_is_played(page):
    page.open("#model=tones&n=2")
    assert page.count("audio") == page.count(".wave polyline") == 2
    page.wait(lambda: page.run("return document.querySelector('audio').duration") == pytest.approx(0.1))
    places = page.run("return document.querySelector('.wave polyline').getAttribute('points')").split()
    heights = [50 - 48 * math.sin(0.3 * i) for i in range(800)]
    assert [float(p.split(",")[1]) for p in places] == pytest.approx(heights, abs=0.06)


def test_sound_is_saved(page, folder):
    page.open("#model=tones&n=1&seed=6")
    page.click("Download Sample 1")
    with wave.open(str(wait_for_file(page, folder, "tones-6-1.wav"))) as file:
        assert (file.getframerate(), file.getnframes()) == (8000, 800)


def test_rows_are_a_table(page, folder):
    """Fields as in the data: categories by name, dates, and missing values as empty fields."""
    page.open("#model=rows&task=sample&seed=5&n=70")
    assert [tab.text for tab in page.all("#tabs button")] == ["Sample"], "no controls for pictures"
    asked = {"model": "rows", "n": 64, "seed": 5}
    found = httpx.post(f"{page.url}/api/sample", json=asked, timeout=60).json()["samples"]
    header = [cell.text for cell in page.all(".table th")]
    assert header == list(found[0]["row"])
    assert page.count(".table tbody tr") == 50, "a preview, two requests"
    first = [cell.text for cell in page.all(".table tbody tr:first-child td")]
    assert first == [found[0]["row"][name].strip() for name in header]
    page.click("Download CSV")
    rows = list(csv.reader(io.StringIO(wait_for_file(page, folder, "rows-5.csv").read_text())))
    assert rows[0] == header
    assert rows[1:65] == [list(item["row"].values()) for item in found]
    assert len(rows) == 71


# -- text ------------------------------------------------------------------------------------------------------------


def test_music_is_heard(page, server):
    page.open("#model=notes&task=continue&seed=2&max_tokens=12")
    page.fill("prompt", "sD5 aA4 tF4 bD3 ")
    page.go()
    notes = page.text(".page-text")
    asked = {"model": "notes", "texts": [notes]}
    found = httpx.post(f"{server.url}/api/listen", json=asked, timeout=60).json()
    assert page.run("return document.querySelector('.heard audio').src").endswith(found["audio"][0]["audio"])
    page.wait(lambda: page.run("return document.querySelector('.heard audio').duration") > 0.5)
    assert page.run("return document.querySelector('.roll').naturalWidth") > 34
    assert page.count(".heard .wave polyline") == 1
    assert page.count(".heard button") == 1
    page.fill("prompt", "no notes")
    page.go()
    assert "not a note" in page.text("#result .error")
    assert any("400" in message for message in page.errors()), "Chromium reports the refused request itself"


def test_words_are_compared(page):
    page.open("#model=words")
    assert [tab.text for tab in page.all("#tabs button")] == ["Similarity"]
    page.go()
    assert "too few" in page.text("#result .error")
    page.fill("texts", "a\nb\n\na")
    page.go()
    cells = [[cell.text for cell in row.find_elements("css selector", "td")] for row in page.all(".cosines tbody tr")]
    asked = {"model": "words", "input": ["a", "b", "a"], "encoding_format": "float"}
    data = httpx.post(f"{page.url}/v1/embeddings", json=asked, timeout=60).json()["data"]
    z = torch.nn.functional.normalize(torch.tensor([each["embedding"] for each in data]), dim=1)
    assert [[float(v) for v in row] for row in cells] == [pytest.approx(row, abs=6e-3) for row in (z @ z.T).tolist()]
    assert cells[0][2] == "1.00" != cells[0][1]


def test_text_streams_with_probabilities(page, server, folder):
    page.open("#model=letters&task=continue&seed=3")
    page.fill("prompt", "abc")
    page.fill("temperature", 0.5)
    page.fill("max_tokens", 12)
    page.one("summary").click()
    for name, value in {"top_p": 0.9, "top_k": 40, "repetition_penalty": 1.1}.items():
        page.fill(name, value)
    page.fill("stop", "zzzz\nyyyy")
    page.go()
    asked = {"model": "letters", "prompt": "abc", "max_tokens": 12, "seed": 3, "temperature": 0.5, "top_p": 0.9,
             "top_k": 40, "repetition_penalty": 1.1, "stop": ["zzzz", "yyyy"], "logprobs": 5}  # fmt: skip
    choice = httpx.post(f"{server.url}/v1/completions", json=asked, timeout=60).json()["choices"][0]
    assert page.text(".tokens") == choice["text"]
    assert page.count(".token") == 12
    assert "12 tokens" in page.text("#result .note")
    box = page.one(".tokens")
    box.send_keys(Press.ARROW_RIGHT)
    rows = page.all(".tip li")
    assert 5 <= len(rows) <= 6
    drawn = page.one(".tip li.drawn").text.split()[-2]
    assert float(drawn) == pytest.approx(100 * math.exp(choice["logprobs"]["token_logprobs"][0]), rel=6e-3)
    box.send_keys(Press.ESCAPE)
    assert not page.one(".tip").is_displayed()
    page.run("document.querySelectorAll('.token')[2].dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))")
    assert page.one(".tip").is_displayed()
    page.click("Download")
    assert wait_for_file(page, folder, "letters.txt").read_text() == "abc" + choice["text"]
    link = page.run("return location.hash")
    page.open(f"{link}&run=1")
    assert page.text(".tokens") == choice["text"]


def test_a_text_is_stopped(page):
    page.open("#model=letters&task=continue&max_tokens=1000&seed=4")
    page.run("""
        const stop = document.querySelector("#controls .stop");
        const enough = () => document.querySelectorAll(".token").length > 2 && !stop.hidden && stop.click();
        new MutationObserver(enough).observe(document.querySelector("#result"), {subtree: true, childList: true});
    """)  # at once: the model is fast, and with this seed it would write all 1,000 tokens
    page.go()
    assert "stopped" in page.text("#result .note")
    assert page.count(".token") < 1000


def test_a_chat_has_turns(page):
    page.open("#model=letters&task=chat&max_tokens=6&seed=4")
    page.fill("message", "Hello")
    page.one("#controls [name='message']").send_keys(Press.ENTER)
    page.settled()
    page.wait(lambda: page.count(".assistant .token") == 6)
    assert page.text(".user") == "Hello"
    page.one("summary").click()
    page.fill("system", "Be brief.")
    page.fill("message", "More")
    page.go()
    assert page.count(".user") == page.count(".assistant") == 2
    page.go()
    assert "empty" in page.text("#status")
    page.click("New chat")
    assert page.count(".user") == 0
    page.open("#model=masks")
    assert "Chat" not in [tab.text for tab in page.all("#tabs button")], "it has no template"


def test_sources_of_a_chat_are_shown(page, page_models, tmp_path):
    (tmp_path / "birds.txt").write_text("A penguin swims.")
    build_index(tmp_path / "index", files=[tmp_path / "birds.txt"])
    with running({"letters": page_models["letters"]}, index=tmp_path / "index") as served:
        other = Page(page.driver, served.url)
        other.open("#model=letters&task=chat&max_tokens=4&seed=4")
        for message, n in (("penguin", 1), ("ostrich", 1)):  # the second one finds nothing
            other.fill("message", message)
            other.go()
            assert other.count(".assistant .sources li") == n
        assert other.text(".sources summary") == "birds.txt, characters 0 to 16"
        other.one(".sources summary").click()
        assert other.one(".sources p").text == "A penguin swims."
        assert other.errors() == []


def test_masks_are_filled_in(page, folder):
    page.open("#model=masks&task=fill&seed=5")
    page.fill("text", "a")
    page.run("const t = document.querySelector('#controls [name=text]'); t.setSelectionRange(1, 1)")
    page.click("Insert [MASK]")
    assert page.run("return document.querySelector('#controls [name=text]').value") == "a[MASK]"
    page.go()
    with torch.no_grad():
        wanted = masked_model().fill(["a[MASK]"], seed=5)
    assert page.text("#result pre") == wanted[0]
    page.click("Download")
    assert wait_for_file(page, folder, "masks.txt").read_text() == wanted[0]


# -- the frame -------------------------------------------------------------------------------------------------------


def test_two_models_are_compared_on_one_seed(page, server):
    page.open("#model=digits&task=sample&seed=9&n=2")
    assert [o.text for o in page.all("#compare option")] == ["nothing", "gan", "noise"], "those of the same shape"
    page.select("#compare", "gan")
    assert [e.text for e in page.all(".pane h2")] == ["digits", "gan"]
    asked = {"model": "gan", "n": 2, "seed": 9}
    found = httpx.post(f"{server.url}/api/sample", json=asked, timeout=60).json()["samples"]
    assert page.pictures()[2:] == [f"data:image/png;base64,{item['image']}" for item in found]
    assert "compare=gan" in page.run("return location.hash")
    page.open("#model=letters&task=continue&compare=letters-2&max_tokens=4&prompt=a&seed=1&run=1")
    assert page.count(".pane .token") == 8


def test_feedback_is_stored(page, folder):
    page.open("#model=letters&task=continue&max_tokens=4&prompt=xyz&seed=1&run=1")
    answer = page.text(".tokens")
    page.click("Bad")
    page.one(".feedback [name='note']").send_keys("too short")
    page.click("Send", ".feedback")
    page.wait(lambda: "Thank you" in page.text(".feedback"))
    entry = FeedbackStore(folder / "feedback.sqlite").entries()[-1]
    assert (entry["model"], entry["rating"], entry["note"], entry["answer"]) == ("letters", -1, "too short", answer)
    assert entry["request"]["prompt"] == "xyz"
    page.go()
    page.click("Good")
    page.click("Send", ".feedback")
    page.wait(lambda: "Thank you" in page.text(".feedback"))
    assert FeedbackStore(folder / "feedback.sqlite").entries()[-1]["rating"] == 1


def test_models_tabs_themes_and_links(page):
    page.open()
    assert page.text("h1") == "zoo"
    page.select("#model", "gan")
    assert [tab.text for tab in page.all("#tabs button")] == ["Sample", "Interpolate"]
    page.all("#tabs button")[0].send_keys(Press.ARROW_RIGHT)
    page.settled()
    selected = page.one("#tabs [aria-selected='true']")
    assert selected.text == "Interpolate"
    assert page.run("return document.activeElement === arguments[0]", selected)
    ground = "return getComputedStyle(document.body).backgroundColor"
    seen = set()
    for theme in ("light", "dark", "auto"):
        page.click("Theme: " + {"light": "auto", "dark": "light", "auto": "dark"}[theme], ".tools")
        assert page.run("return document.documentElement.dataset.theme") == theme
        seen.add(page.run(ground))
    assert len(seen) == 2
    page.click("Copy link", ".tools")
    page.wait(lambda: "clipboard" in page.text("#status") or "run=1" in page.text("#status"))
    page.run("location.hash = '#model=moons&task=sample&n=3'")
    page.wait(lambda: page.count(".plot circle") == 3)


LABELLED = """
return [...document.querySelectorAll('input, select, textarea, button, [tabindex="0"], img')]
  .filter((e) => !(e.labels?.length || e.textContent.trim() || e.ariaLabel || e.alt || e.querySelector('img[alt]')))
  .map((e) => e.outerHTML);
"""
UNIQUE = "const ids = [...document.querySelectorAll('[id]')].map((e) => e.id); return ids.length === new Set(ids).size"


def test_controls_have_labels_and_fit_a_phone(page, driver):
    """Each control has a name, and the page fits into 360 pixels."""
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        for link in PAGE_TASKS:
            page.open(f"#{link}")
            assert page.run(LABELLED) == [], link
            assert page.run(UNIQUE), link
            assert page.run("return document.documentElement.scrollWidth") <= 360, link
            assert page.run("return document.querySelector('[aria-selected=true]').tabIndex") == 0
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_errors_are_shown(page):
    page.open("#model=noise&task=sample&n=1")
    page.one("summary").click()
    page.fill("sampler", "nothing")
    page.go()
    assert "nothing" in page.text("#result [role='alert']")
    assert any("400" in message for message in page.errors()), "Chromium reports the refused request itself"


def test_a_key_is_asked_for(page, page_models):
    with running({"gan": page_models["gan"]}, Keys((digest("secret"),))) as locked:
        other = Page(page.driver, locked.url)
        other.driver.get(locked.url)
        other.wait(lambda: other.one("#key").is_displayed())
        other.one("#key input").send_keys("secret")
        other.click("Use key", "#key")
        other.wait(lambda: other.pictures())
        assert not other.one("#key").is_displayed()
        assert all("401" in message for message in other.errors()), "Chromium reports the refused request itself"
