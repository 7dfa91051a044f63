"""The manifest against real imports, and everything that must be found, refused or rebuilt."""

import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.contracts.specs import info_of
from zoo.api import describe, model_info
from zoo.config.compose import compose
from zoo.config.recipes import groups, recipes, registered_name, written
from zoo.core import discovery, registry, signature
from zoo.core.errors import ZooError
from zoo.core.signature import describe as describe_class
from zoo.models.ability import ABILITIES

ROOT = Path(__file__).parents[2]
EXAMPLE = next(
    block for block in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    if '@zoo.register("model"' in block
)  # fmt: skip


def run(*command: str, cwd: Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, capture_output=True, text=True, timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done


# -- the manifest equals an import -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imported() -> dict[tuple[str, str], Any]:
    """Everything that the built-in modules register, all of them imported."""
    for source in discovery.sources(registry.PACKAGES):
        if source.plugin is None:
            importlib.import_module(source.module)
    table = {(kind, name): thing for kind in registry._table for name, thing in registry._table[kind].items()}
    return {key: thing for key, thing in table.items() if thing.__module__.startswith("zoo.")}


def test_every_entry_is_like_the_class(imported: dict[tuple[str, str], Any]) -> None:
    registry.discover()
    assert registry._manifest is not None
    entries = {(kind, name): e for kind, named in registry._manifest.items() for name, e in named.items()}
    assert {key for key, entry in entries.items() if entry.module.startswith("zoo.")} == set(imported)
    for (kind, name), thing in imported.items():
        entry = entries[kind, name]
        assert entry == describe_class(kind, name, thing, entry.source)
        assert registry.get(kind, name) is thing
        assert entry.doc == inspect.getdoc(thing)
        assert [s.name for s in entry.settings] == [
            p.name for p in inspect.signature(thing).parameters.values() if p.kind is p.KEYWORD_ONLY
        ]
        if kind == "model":
            assert entry.attributes["accepts"] == tuple(space.registered_name for space in thing.accepts)
        for attribute in ("family", "paper", "conditional", "monitor") if kind == "model" else ():
            assert entry.attributes.get(attribute) == getattr(thing, attribute, None), attribute
        for method in (method for ability in ABILITIES.values() for method in ability.methods):
            assert (method in entry.methods) == callable(getattr(thing, method, None)), method


@pytest.mark.parametrize("kind", ["model", "data"])
def test_what_a_recipe_sets_is_what_is_composed(kind: str) -> None:
    """The class, the values and the choices, read without Hydra."""
    for name, path in recipes(kind).items():
        composed = info_of(name).settings if kind == "model" else compose(f"{kind}={name}")[kind]
        assert registered_name(name, path) == composed.name, name
        values, chosen = written(path)
        if kind == "model" and "data" in chosen:
            assert info_of(name).data == registered_name(chosen["data"], recipes("data")[chosen["data"]])
        for key, value in values.items():
            found = composed[key]
            if isinstance(value, dict):
                for inner, number in value.items():
                    assert _same(found[inner], number), (name, key, inner)
            elif isinstance(found, dict) or hasattr(found, "name"):
                group = f"{kind}/{key}"
                assert found.name == registered_name(value, recipes(group)[value]), (name, key)
            else:
                assert _same(found, value), (name, key)


def _same(composed: Any, read: Any) -> bool:
    return composed == read or (isinstance(composed, float) and composed == float(read))


# -- everything is found --------------------------------------------------------------------------------------------

FORMS = """
from zoo.core.registry import register as r
import zoo
import zoo.core.registry as reg
from zoo.core.registry import register

NAME = "in_a_variable"


@r("thing", "renamed")
def one(*, size: int = 1): ...


@register("thing", NAME)
def two(): ...


@register(
    "thing",
    "over_three_lines",
)
class Three: ...


class Outer:
    @reg.register("thing", "nested")
    class Inner: ...


for number in range(2):
    zoo.register("thing", f"number_{number}")(type(f"Number{number}", (), {}))
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the zoo with README's example at README's path, and in a sub-folder under another name.

    Compiled modules are copied, too, and are valid: copies have the times of their originals.
    """
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("zoo", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.pyc.*"))  # being written
    shutil.copy(ROOT / "train.py", folder)
    (folder / "zoo/models/autoencoder/mine.py").write_text(EXAMPLE)
    (folder / "zoo/models/own").mkdir()
    (folder / "zoo/models/own/mine.py").write_text(EXAMPLE.replace('"mine"', '"own"'))
    (folder / "zoo/nn/forms").mkdir()
    (folder / "zoo/nn/forms/forms.py").write_text(FORMS)
    return folder


def test_the_example_of_readme_is_listed_and_trained(checkout: Path) -> None:
    at = {"PYTHONPATH": str(checkout), "ZOO_CACHE": str(checkout / "cache")}
    listed = run("-m", "zoo", "list", cwd=checkout, **at)
    assert {"mine", "own", "gan"} <= {line.split()[0] for line in listed.stdout.splitlines()}
    script = (
        "import zoo.core.registry as r, sys; print(*r.names('thing'), 'torch' in sys.modules, r.get('thing', 'nested'))"
    )
    found = run("-c", script, cwd=checkout, **at).stdout
    assert found.strip() == (
        "in_a_variable nested number_0 number_1 over_three_lines renamed False <class 'zoo.nn.forms.forms.Outer.Inner'>"
    )
    words = ["model=mine,own", "model.latent_dim=3", "data=digits", "trainer=smoke"]
    run("train.py", "-m", *words, cwd=checkout, **at)
    assert {path.parent.name for path in checkout.glob("runs/*/*/*/best.ckpt")} == {"0-mine-digits", "1-own-digits"}


# -- a stand-in for the zoo, quick to index -------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The zoo's modules of registry and discovery, with one model."""
    shutil.copytree(ROOT / "zoo/core", tmp_path / "zoo/core", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "nn/networks/components.py", "nn/optim/components.py"):
        (tmp_path / "zoo" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "zoo" / name, tmp_path / "zoo" / name)
    for package in ("models", "data"):
        (tmp_path / "zoo" / package).mkdir()
    write(tmp_path, "zoo/models/first.py", "first")
    return tmp_path


def write(folder: Path, place: str, name: str, more: str = "") -> None:
    (folder / place).write_text(
        f"import sys, zoo\n\n\n@zoo.register('model', {name!r})\nclass Model:\n    '''A model.'''\n{more}"
    )


NAMES = "import zoo.core.registry as r, sys; print(*r.names('model')); print('zoo.models.first' in sys.modules)"


def names(folder: Path, script: str = NAMES, code: int = 0, **environment: str) -> tuple[list[str], str]:
    done = run("-c", script, cwd=folder, code=code, PYTHONPATH=environment.pop("PYTHONPATH", ""),
               ZOO_CACHE=environment.pop("ZOO_CACHE", str(folder / "cache")), **environment)  # fmt: skip
    return done.stdout.splitlines(), done.stderr


def test_a_changed_file_is_indexed_again_and_only_then(small: Path) -> None:
    write(small, "zoo/models/first.py", "first", "open('indexed', 'a').write('.')\n")
    for _ in range(3):
        assert names(small)[0] == ["first", "False"]
    assert (small / "indexed").read_text() == "."
    # Of another length: Python's own bytecode cache compares whole seconds and sizes.
    write(small, "zoo/models/first.py", "another", "open('indexed', 'a').write('.')\n")
    assert names(small)[0] == ["another", "False"]
    assert (small / "indexed").read_text() == ".."
    (small / "zoo/data/deeper").mkdir()
    write(small, "zoo/data/deeper/second.py", "second")
    assert names(small)[0] == ["another second", "False"]
    (small / "zoo/data/deeper/second.py").unlink()
    assert names(small)[0] == ["another", "False"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"entries": []}', "null", '{"site": null, "entries": 3}'])
def test_a_damaged_cache_is_made_again(content: str, small: Path) -> None:
    names(small)
    (path,) = small.glob("cache/*.json")
    whole = path.read_text()
    path.write_text(content)
    assert names(small)[0] == ["first", "False"]
    assert json.loads(path.read_text()) == json.loads(whole)
    assert [p.name for p in (small / "cache").iterdir()] == [path.name]


def test_a_cache_that_cannot_be_written_is_done_without(small: Path) -> None:
    (small / "file").write_text("")
    out, err = names(small, ZOO_CACHE=str(small / "file" / "cache"))
    assert out == ["first", "False"]
    assert err.count("cannot be cached (Not a directory)") == 1
    assert "ZOO_CACHE" in err


def test_old_manifests_are_removed(small: Path) -> None:
    (small / "cache").mkdir()
    for number in range(12):
        (small / f"cache/manifest-{number}.json").write_text("{}")
    (small / "cache/other.json").write_text("{}")
    names(small)
    assert len(list(small.glob("cache/manifest-*.json"))) == discovery.MAX_MANIFESTS
    assert (small / "cache/other.json").exists()


def test_without_a_second_process_all_is_imported_here(small: Path) -> None:
    script = f"import sys; sys.executable = '/nowhere/python'\n{NAMES}"
    assert names(small, script)[0] == ["first", "True"]
    assert not list(small.glob("cache/*.json"))


def test_a_process_that_dies_is_reported(small: Path) -> None:
    write(
        small, "zoo/models/first.py", "first", "import os; print('going', file=sys.stderr, flush=True); os._exit(7)\n"
    )
    _, err = names(small, code=1)
    assert "ZooError: indexing the models failed with exit status 7: going." in err


def test_a_name_that_two_modules_register_is_refused_each_time(small: Path) -> None:
    write(small, "zoo/models/second.py", "first")
    for _ in range(2):
        _, err = names(small, code=1)
        assert "model 'first' is registered twice: by zoo.models.first and by zoo.models.second. Rename one" in err


def test_a_name_that_was_taken_before_the_search_is_reported(small: Path) -> None:
    script = (
        "import zoo, zoo.core.registry\n@zoo.register('model', 'first')\nclass Mine: pass\nzoo.core.registry.discover()"
    )
    assert "is registered twice: by __main__ and by zoo.models.first. Rename one" in names(small, script, 1)[1]
    script = "import zoo, zoo.core.registry\nzoo.core.registry.discover()\nzoo.register('model', 'first')(dict)"
    assert "is registered twice: by zoo.models.first and by builtins. Rename one" in names(small, script, 1)[1]


def test_a_broken_module_is_skipped_and_named(small: Path) -> None:
    """Its registrations before the error are not listed; those of its imports are."""
    write(small, "zoo/models/broken.py", "never", "import zoo.models.zest\nraise RuntimeError('half written')\n")
    write(small, "zoo/models/zest.py", "zest")
    write(small, "zoo/models/leaves.py", "leaves", "sys.exit(0)\n")
    (small / "zoo/models/odd.py").write_text(
        "import zoo\nzoo.register('model', 'odd')(lambda *, size=object(): None)\n"
    )
    for _ in range(2):
        out, err = names(small)
        assert out == ["first zest", "False"]
        assert "module zoo.models.broken is skipped: RuntimeError('half written')" in err
        assert "module zoo.models.leaves is skipped: SystemExit(0)" in err
        assert "model 'odd' of zoo.models.odd is skipped: model 'odd': size=<object" in err


# -- plug-ins -------------------------------------------------------------------------------------------------------


def plug(site: Path, name: str, text: str, version: str = "1.0") -> str:
    """A distribution in a folder, as an installer leaves it."""
    (site / name).mkdir(parents=True, exist_ok=True)
    (site / name / "__init__.py").write_text(textwrap.dedent(text))
    for old in site.glob(f"{name}-*.dist-info"):
        shutil.rmtree(old)
    about = site / f"{name}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-dist\nVersion: {version}\n")
    (about / "entry_points.txt").write_text(f"[zoo.plugins]\n{name} = {name}\n")
    return str(site)


SLOW = """
open('imported', 'a').write('.')
import zoo
from slow.inner import Model
zoo.register('model', 'from_a_plugin')(Model)
"""


def test_a_plugin_is_imported_once_until_it_changes(small: Path) -> None:
    site = plug(small / "site", "slow", SLOW)
    (small / "site/slow/inner.py").write_text("class Model:\n    '''Defined elsewhere.'''\n")
    for _ in range(2):
        assert names(small, PYTHONPATH=site)[0] == ["first from_a_plugin", "False"]
    assert (small / "imported").read_text() == "."
    script = (
        "import zoo.core.registry as r; print(r.peek('model', 'from_a_plugin').doc, r.get('model', 'from_a_plugin'))"
    )
    assert names(small, script, PYTHONPATH=site)[0] == ["Defined elsewhere. <class 'slow.inner.Model'>"]
    assert (small / "imported").read_text() == "..", "`get` imports it, `names` and `peek` do not"
    assert names(small)[0] == ["first", "False"], "uninstalled"
    (small / "site/slow/inner.py").write_text("class Model:\n    '''Changed.'''\n")
    script = "import zoo.core.registry as r; print(r.peek('model', 'from_a_plugin').doc)"
    assert names(small, script, PYTHONPATH=site)[0] == ["Changed."]
    plug(small / "site", "slow", SLOW, "2.0")
    names(small, PYTHONPATH=site)
    assert (small / "imported").read_text() == "....", "another version is indexed again"


def test_a_broken_plugin_is_named_without_another_import(small: Path) -> None:
    site = plug(small / "site", "broken", "open('imported', 'a').write('.')\nimport nobody_has_this\n")
    plug(small / "site", "thief", "import zoo\nzoo.register('model', 'first')(dict)\n")
    for _ in range(2):
        out, err = names(small, PYTHONPATH=site)
        assert out == ["first", "False"]
        assert "zoo plug-in 'broken' of broken-dist is skipped: ModuleNotFoundError" in err
        assert "nobody_has_this" in err
        assert "zoo plug-in 'thief' of thief-dist is skipped" in err
        assert "registered twice: by zoo.models.first and by builtins" in err
    assert (small / "imported").read_text() == "."


def test_what_failed_is_tried_again_after_an_installation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []

    def index() -> dict[str, Any]:
        calls.append(1)
        return {"entries": [], "folders": [], "failures": [{"what": "it", "error": "none", "duplicate": False}]}

    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(discovery, "_run_in_subprocess", lambda index: index())
    installed = [1]
    monkeypatch.setattr(discovery, "_site", lambda: list(installed))
    for _ in range(2):
        discovery.manifest(registry.PACKAGES, index)
    assert len(calls) == 1
    installed[0] = 2
    discovery.manifest(registry.PACKAGES, index)
    assert len(calls) == 2


# -- imports that are late ------------------------------------------------------------------------------------------


def test_constants_of_a_late_module_have_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model may be built on the meta device, and import a network meanwhile."""
    (tmp_path / "zoo_late.py").write_text(
        "import torch\nfrom zoo import register\nCONSTANT = torch.ones(2)\n\n\n"
        '@register("thing", "late")\nclass Late:\n    pass\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    with registry.isolated(empty=True):
        entries = {
            name: signature.Entry("thing", name, "zoo_late", name.title(), "", (), {}, (), "zoo_late")
            for name in ("late", "never")
        }
        registry._manifest = {"thing": entries}
        assert registry.names("thing") == ["late", "never"]
        assert "zoo_late" not in sys.modules
        before = registry.generation
        with torch.device("meta"):
            assert registry.get("thing", "late").__name__ == "Late"
            assert torch.zeros(1).is_meta
        assert registry.generation == before, "nothing is new to Hydra"
        assert sys.modules["zoo_late"].CONSTANT.tolist() == [1.0, 1.0]
        with pytest.raises(ImportError, match="zoo_late was imported, but has not registered the thing 'never'"):
            registry.get("thing", "never")
        with pytest.raises(registry.DuplicateError, match="'late' is registered twice: by zoo_late and by"):
            registry.register("thing", "late")(dict)


# -- zoo info -------------------------------------------------------------------------------------------------------


def test_facts_of_a_recipe_come_without_composing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.config.compose.compose", lambda *_: pytest.fail("composed"))
    info = model_info("wgan_gp")
    assert (info.family, info.registered, info.accepts) == ("adversarial", "gan", ("image", "vector"))
    assert "gp_weight: 10.0" in info.describe()


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("gan", ["latent_dim: 16 int, greater than 0, default 64", "size of the noise.", "data digits unless data=NAME",
                 "loss: non_saturating one of non_saturating, hinge, least_squares, wasserstein",
                 "training.max_steps: 4000 int, default 2000", "generator: auto one of auto,"]),
        ("gpt2", ["backbone: {name: transformer, d_model: 768, n_heads: 12, n_layers: 12,", "data stdlib unless"]),
        ("backbone/transformer", ["n_layers: 4 int, greater than 0", "zoo train model/backbone=transformer"]),
        ("mnist", ["binarize: none one of none, dynamic, static, threshold", "settings (data.KEY=VALUE)",
                   "samples per batch."]),
        ("data/mnist", ["binarize: none one of none, dynamic, static, threshold"]),
        ("encoder/resnet", ["resnet: Images", "width: 32 int, greater than 0", "zoo train model/encoder=resnet"]),
        ("model/encoder/resnet", ["width: 32 int, greater than 0"]),
        ("decoder/auto", ["mlp_max_size: 64"]),
        ("bpe4096", ["vocab_size: 4096 int, greater than 0, default 2048", "zoo train data/tokenizer=bpe4096"]),
        ("trainer/gpu", ["precision: bf16-mixed", "tf32: true", "devices: 1", "use it: zoo train trainer=gpu"]),
        ("experiment/shakespeare", ["shakespeare: Tiny Shakespeare by", "model gpt", "model.backbone.d_model: 128"]),
    ],
)  # fmt: skip
def test_a_page_shows_types_bounds_values_and_meaning(name: str, lines: list[str]) -> None:
    page = " ".join(describe(name).split())
    for line in lines:
        assert line in page, page


def test_every_name_has_a_page() -> None:
    for group in groups():
        for name in recipes(group):
            page = describe(f"{group}/{name}")
            assert page.startswith(f"{name}: "), page
            assert f"{group}={name}" in page


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("auto", r"auto: an ambiguous name. Take one of trainer/auto, model/decoder/auto"),
        ("gna", r"unknown name 'gna'. Did you mean 'gan'"),
        ("encoder/resnt", r"unknown encoder 'resnt', did you mean 'resnet'"),
        ("encodr/resnet", r"unknown group 'encodr', did you mean .*encoder"),
    ],
)
def test_a_name_without_a_page_is_refused(name: str, says: str) -> None:
    with pytest.raises(ZooError, match=says):
        describe(name)


# -- completion -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["train", "model", "=", "wg"], ["wgan_gp"]),  # bash splits at "="
        (["train", "model", "="], ["gan", "vae"]),
        (["train", "trainer=smoke", "data", "=", "mn"], ["mnist"]),
        (["train", "model/encoder", "=", "res"], ["resnet"]),
        (["train", "experiment", "=", "names_l"], ["names_lstm"]),
        (["bench", "model", "=", "wg"], ["wgan_gp"]),
        (["info", "wg"], ["wgan_gp"]),
        (["info", "encoder/res"], ["encoder/resnet"]),
        (["train", "model.lr", "=", "1"], []),
        (["train", "wg"], []),
    ],
)
def test_bash_completes(typed: list[str], offered: list[str]) -> None:
    words = " ".join(["zoo", *typed])
    done = run("-c", COMMAND, cwd=ROOT, _ZOO_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(len(typed)))
    found = done.stdout.split()
    assert set(offered) <= set(found)
    assert found == offered or len(found) > 10


COMMAND = "import sys; sys.argv = ['zoo']; from zoo.cli.main import main; main()"


def test_other_shells_complete_whole_words() -> None:
    done = run("-c", COMMAND, cwd=ROOT, _ZOO_COMPLETE="complete_fish", _TYPER_COMPLETE_FISH_ACTION="get-args",
               _TYPER_COMPLETE_ARGS="zoo train data=digits model=wg",
               _TYPER_COMPLETE_WORD_TO_COMPLETE="model=wg")  # fmt: skip
    assert done.stdout.split() == ["model=wgan_gp"]
