"""The files of the page: complete, within the content security policy, and without names of models."""

import re
from pathlib import PurePosixPath

import pytest

import zoo
from zoo.serve.assets import read_assets

PAGE = {path: asset.content.decode() for path, asset in read_assets().items()}
OUTSIDE = re.compile(r"https?://(?!www\.w3\.org/)|[\"'(]//\w")  # w3.org names the format of SVG
INLINE = re.compile(r"<style|\sstyle=|\son\w+=|javascript:|<script(?![^>]*\ssrc=)")
WORDS = {
    "embedding",
    "images",
    "noise",
    "series",
    "table",
    "text",
    "var",
    "words",
}  # names that are words, or functions of CSS
UNSAFE = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setAttribute\(\"style"
)


def references(path: str, text: str) -> set[str]:
    """Paths of the files that a file loads."""
    found = {"/page/" + name for name in re.findall(r"from \"\./([\w.]+)\"", text)}
    if path == "/":
        found |= {name for name in re.findall(r"(?:href|src)=\"(/[^\"]+)\"", text) if name != "/openapi.json"}
    return found


def test_the_page_is_complete_and_has_no_unused_file() -> None:
    assert {"/", "/page/app.js", "/page/style.css"} <= PAGE.keys()
    loaded, waiting = {"/"}, ["/"]
    while waiting:
        path = waiting.pop()
        for name in references(path, PAGE[path]) - loaded:
            loaded.add(name)
            waiting.append(name)
    assert loaded == PAGE.keys()


@pytest.mark.parametrize("path", sorted(PAGE))
def test_files_stay_within_the_policy(path: str) -> None:
    assert not OUTSIDE.search(PAGE[path])
    assert not INLINE.search(PAGE[path])
    assert not UNSAFE.search(PAGE[path])
    assert PAGE[path].count("\n") < 350
    assert PurePosixPath(path).suffix in (".js", ".css", ".svg", "")


@pytest.mark.parametrize(
    "text",
    ['src="https://cdn.example/a.js"', "url(//cdn.example/a)", '<p style="x">', "<script>1</script>", ' onclick="a"'],
)
def test_breaches_are_found(text: str) -> None:
    assert OUTSIDE.search(text) or INLINE.search(text)


def test_controls_follow_from_abilities_alone() -> None:
    """No model, family or data set is named."""
    infos = [zoo.model_info(name) for name in zoo.list_models()]
    names = {name for info in infos for name in (info.name, info.registered, info.family)} | set(zoo.list_data())
    found = set(re.findall(r"[\w-]+", "".join(PAGE.values())))
    assert "interpolate" in found
    assert found & names <= WORDS
