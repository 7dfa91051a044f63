"""Documentation agrees with the repository."""

import re
from pathlib import Path

import pytest
import yaml

from zoo.api import list_models, model_info, tables

ROOT = Path(__file__).parents[1]
PAGES = sorted(p for p in ROOT.glob(".github/**/*.md") if "draft" not in p.name)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_page_is_in_the_index() -> None:
    index = ROOT / ".github/docs/README.md"
    for page in index.parent.glob("*.md"):
        assert page == index or f"]({page.name})" in index.read_text(), page.name


def test_tables_of_models_and_data() -> None:
    written = re.search(
        r"<!-- tables: .* -->\n(.*?)\n<!-- /tables -->", (ROOT / ".github/docs/models.md").read_text(), re.DOTALL
    )
    assert written
    assert written[1] == tables(), "paste the output of `zoo list --markdown`"


def test_workflow_covers_the_supported_versions_of_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    job = workflow["jobs"]["checks"]
    supported = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert supported
    assert job["strategy"]["matrix"]["python"] == [
        f"3.{minor}" for minor in range(int(supported[1]), int(supported[2]))
    ]
    assert any(step.get("run") == "bash .ci/run" for step in job["steps"])


def test_the_table_of_families_covers_the_registry() -> None:
    table = re.search(r"\| family \|.*?\n\n", (ROOT / "README.md").read_text(), re.DOTALL)
    assert table
    named = {name for row in table[0].strip().splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[2])}
    assert named <= set(list_models()), named - set(list_models())
    shown = {model_info(name).family for name in named}
    assert shown == {model_info(name).family for name in list_models()}
