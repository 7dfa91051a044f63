"""The commands, links and examples of README work."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

import zoo
from tests.contracts.test_resume import HELD, STOPS
from tests.security import attacks
from tests.security.fuzz import LOADERS
from zoo.config.compose import compose
from zoo.core import registry
from zoo.core.errors import ZooError
from zoo.core.spaces import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.split("#")[0].strip() for line in "".join(BLOCKS).splitlines()]
TRAINING = [c.removeprefix("python train.py").split() for c in COMMANDS if c.startswith("python train.py")]


@pytest.mark.parametrize("overrides", TRAINING, ids=" ".join)
def test_every_training_command_composes(overrides: list[str]) -> None:
    if overrides[0].startswith("resume="):
        return  # needs a run
    overrides = [o for o in overrides if o != "-m"]
    sweep = next((o for o in overrides if "," in o and "[" not in o), None)
    choices = [sweep.partition("=")[0] + "=" + v for v in sweep.partition("=")[2].split(",")] if sweep else [None]
    for choice in choices:
        compose(*[choice if o == sweep else o for o in overrides])
    with pytest.raises(ZooError):
        compose(*overrides, "no.such.key=1")


def test_links_and_pictures_are_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", README):
        path = "".join(target)
        if not path.startswith("http"):
            assert (ROOT / path).exists(), path


EXAMPLES = [b for b in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "@zoo.register" in b]


def test_the_model_in_one_file_works() -> None:
    """The example runs unchanged, as in a notebook; tests/core/test_discovery.py saves it as a file."""
    with registry.isolated():
        exec(compile(EXAMPLES[0], "README.md", "exec"), {"__name__": "readme"})
        model = zoo.create_model("mine", data=zoo.DataSpec(Image(1, 8, 8)), latent_dim=3, decoder="resnet")
        assert model.sample(2).shape == (2, 1, 8, 8)
        assert "mine" in zoo.list_models(), "models registered later are found too"
    assert "mine" not in zoo.list_models()


def test_data_of_ones_own_work(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(100, 5)))
    with registry.isolated():
        exec(compile(EXAMPLES[1], "README.md", "exec"), {"__name__": "readme"})
        data = zoo.create_data("readings", path=str(tmp_path / "x.npy"), batch_size=16)
    data.setup()
    assert [len(split[0]) for split in (data.train, data.val, data.test)] == [80, 10, 10]
    assert next(iter(data.train_dataloader())).x.shape == (16, 5)
    assert zoo.create_model("vae", data=data.spec).sample(3).shape == (3, 5)


def test_the_table_of_guarantees_states_the_size_of_each_test() -> None:
    corpus = attacks.RECIPES, attacks.RUNS, attacks.CHECKPOINTS, attacks.TOKENIZERS
    assert f"{len(HELD)} pairs of recipe and data, 2 to {len(STOPS)} stops each" in README
    assert f"{sum(map(len, corpus))} attacks in" in README
    assert f"each of {len(LOADERS)} loaders" in README


def test_ci_runs_the_test_command_that_readme_prints() -> None:
    found = subprocess.run(
        ["sed", "-n", "/<!-- test -->/,/^```$/p", str(ROOT / "README.md")], capture_output=True, text=True, check=True
    ).stdout
    assert "-m pytest" in found
    assert "<!-- test -->" in (ROOT / ".ci" / "run").read_text()
