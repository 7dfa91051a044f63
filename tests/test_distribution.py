"""The distribution's name: `zoo` on the package index is another project."""

import re
import tomllib
from pathlib import Path

from zoo.io.provenance import DISTRIBUTION

ROOT = Path(__file__).parents[1]
FOREIGN = re.compile(r"""(?:pip|uv)\s+(?:\w+\s+)*?install\b[^`\n]*?(?<![\w./-])["']?zoo(?![\w.-])""")


def test_no_text_or_message_installs_a_distribution_called_zoo() -> None:
    assert FOREIGN.search("pip install 'zoo[onnx]'")
    assert FOREIGN.search("pip install -U zoo")
    assert not FOREIGN.search("pip install -e zoo-plugin")
    for path in [
        *ROOT.rglob("*.py"),
        *ROOT.rglob("*.md"),
        *ROOT.rglob("*.yaml"),
        *ROOT.rglob("*.yml"),
        ROOT / ".ci/run",
    ]:
        if path == Path(__file__) or ".venv" in path.parts:
            continue
        assert not FOREIGN.search(path.read_text(encoding="utf-8")), path


def test_the_project_and_its_own_extras_have_the_new_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == DISTRIBUTION
    assert "zoo" in project["scripts"]
    needed = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    assert "zoo" not in [re.match(r"[\w.-]+", requirement)[0] for requirement in needed]  # type: ignore[index]
