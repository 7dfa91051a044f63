"""A headless Chromium that shows the page."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
NEEDED = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver: apt-get install chromium chromium-driver"
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--force-device-scale-factor=1",
)  # fmt: skip


class Page:
    """The page in a browser, and what a person does with it.

    Args:
        driver: the browser.
        url: of the server.
    """

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver, self.url = driver, url

    def open(self, link: str = "") -> None:
        self.driver.get("about:blank")  # a change of the part after # alone would not load the page again
        self.driver.get(f"{self.url}/{link}")
        self.wait(lambda: self.all("#model option"))
        self.settled()

    def wait(self, condition, seconds: float = 20):
        return WebDriverWait(self.driver, seconds, poll_frequency=0.03).until(lambda _: condition())

    def run(self, script: str, *values):
        return self.driver.execute_script(script, *values)

    def settled(self) -> None:
        """Wait until nothing runs."""
        self.wait(lambda: self.run("return document.body.dataset.busy !== 'true'"))

    def all(self, css: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def one(self, css: str) -> WebElement:
        (found,) = self.all(css)
        return found

    def count(self, css: str) -> int:
        return len(self.all(css))

    def text(self, css: str) -> str:
        return self.run("return document.querySelector(arguments[0]).textContent", css)

    def click(self, text: str, within: str = "main") -> None:
        """Press the button of this name."""
        buttons = [b for b in self.all(f"{within} button") if b.is_displayed()]
        (found,) = [b for b in buttons if text in (b.text, b.get_attribute("aria-label"))]
        found.click()

    def tab(self, text: str) -> None:
        self.click(text, "#tabs")
        self.settled()

    def choose(self, name: str, value: str) -> None:
        """Choose a radio button of a group by its caption."""
        label = f"//fieldset[@data-name='{name}']//label[normalize-space()='{value}']"
        self.driver.find_element(By.XPATH, label).click()

    def select(self, css: str, value: str) -> None:
        Select(self.one(css)).select_by_visible_text(value)
        self.settled()

    def fill(self, name: str, value: object) -> None:
        """Set a field as a person does: its `input` event fires."""
        self.run(
            "const field = document.querySelector(`#controls [name='${arguments[0]}']`);"
            "field.value = arguments[1];"
            "field.dispatchEvent(new Event('input', {bubbles: true}))",
            name, str(value),
        )  # fmt: skip

    def go(self) -> None:
        self.one("#controls .run").click()
        self.settled()

    def pictures(self) -> list[str]:
        return self.run("return [...document.querySelectorAll('#result img')].map((i) => i.src)")

    def errors(self) -> list[str]:
        """Messages of the console since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


@contextmanager
def browsing(folder: Path, size: tuple[int, int] = (1280, 900)) -> Iterator[webdriver.Chrome]:
    """A browser with an empty profile; what it saves is in `folder`."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={size[0]},{size[1]}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()
