"""Make the picture of the page in README: `python -m tests.serve.screenshot .github/page.png`.

Other models and another tab: `--link "model=vae-digits&task=latents" --models vae-digits`.
"""

import argparse
import tempfile
from pathlib import Path

from tests.serve.browser import Page, browsing
from tests.serve.servers import running
from zoo.serve.pool import find_sources

MODELS = ["diffusion-digits", "vae-digits"]
LINK = "model=diffusion-digits&task=sample&compare=vae-digits&n=12&seed=1"


def main() -> None:
    """Serve pretrained models, open the page, and save what it shows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--link", default=LINK)
    parser.add_argument("--size", type=int, nargs=2, default=(1120, 640))
    given = parser.parse_args()
    width, height = given.size
    sources = {source.name: source for source in find_sources(given.models)}
    with tempfile.TemporaryDirectory() as folder, running(sources) as server, browsing(Path(folder)) as driver:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        page = Page(driver, server.url)
        page.open(f"#{given.link}")
        page.wait(lambda: page.run("return [...document.images].every((i) => i.complete)"))
        driver.save_screenshot(str(given.out))


if __name__ == "__main__":
    main()
