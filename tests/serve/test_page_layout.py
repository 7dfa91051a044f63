"""The layout of each tab, at the widths of a phone and a desktop, in light and dark.

Controls lie within the window, no two overlap, no text is cut, and text differs enough from its ground (WCAG 2.2,
1.4.3: 4.5 to 1). Both themes have the same boxes.
"""

from pathlib import Path

import pytest

from tests.serve.browser import NEEDED
from tests.serve.given_models import GIVEN, prompted_model
from tests.serve.page_models import PAGE_TASKS
from tests.serve.servers import running

pytestmark = NEEDED
SCRIPT = Path(__file__).with_name("layout.js").read_text()

GIVEN_TASKS = (
    "model=prompted&task=sample&prompt=a+three", "model=captions&task=caption", "model=answers&task=answer",
    "model=pairs&task=translate", "model=domains&task=translate", "model=styles&task=stylize",
    "model=seasons&task=forecast&series=1,2%0A2,1%0A3,4&run=1", "model=films&task=recommend&items=Alien&run=1",
    "model=cells&task=impute&run=1", "model=clips&task=frames&n=2", "model=clips&task=sample&n=2",
)  # fmt: skip
PHONE, DESKTOP = 360, 1280  # pixels
FAULTS = {
    "outside": "#controls .run { width: 200vw; }",
    "overlap": "#theme { margin-left: -5rem; }",
    "cut": ".summary { width: 2rem; overflow: hidden; white-space: nowrap; }",
    "contrast": ".facts { color: var(--ground); }",
}


@pytest.fixture(scope="module")
def server(page_models):
    made = {name: make() for name, make in (GIVEN | {"prompted": prompted_model}).items()}
    with running(page_models | {name: lambda model=model: model for name, model in made.items()}) as found:
        yield found


@pytest.fixture
def resize(driver):
    """Gives the window the width of a device."""

    def call(width):
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    yield call
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def in_theme(page, theme):
    page.run("document.documentElement.dataset.theme = arguments[0]", theme)
    return page.run(SCRIPT)


@pytest.mark.parametrize("link", [*PAGE_TASKS, *GIVEN_TASKS])
def test_every_tab_is_whole(page, resize, link):
    """The page is opened on a phone and then widened; the one below is opened at each width."""
    resize(PHONE)
    page.open(f"#{link}")
    page.wait(lambda: page.run("return [...document.images].every((i) => i.complete)"))
    assert page.count("#result .error") == 0
    page.run("document.querySelectorAll('#controls details').forEach((each) => (each.open = true))")
    for width in (PHONE, DESKTOP):
        resize(width)
        light, dark = in_theme(page, "light"), in_theme(page, "dark")
        assert light["found"] == []
        assert dark["found"] == []
        assert len(light["boxes"]) > 4
        assert light["boxes"] == dark["boxes"]


@pytest.mark.parametrize("width", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(page, resize, width, fault):
    """The negative controls: one rule of style at a time."""
    resize(width)
    page.open("#model=gan&task=sample&n=4")
    assert in_theme(page, "light")["found"] == []
    rule = "const sheet = new CSSStyleSheet(); sheet.replaceSync(arguments[0]); document.adoptedStyleSheets = [sheet]"
    page.run(rule, FAULTS[fault])
    kinds = {each.partition(":")[0] for each in in_theme(page, "light")["found"]}
    assert fault in kinds
