"""Packages imported by each command, in a fresh interpreter. Times are measured by a benchmark, not tested."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.benchmarks import startup
from tests.benchmarks.startup import BARE, COMMANDS, COMPLETING, Startup, first_step
from zoo.core.errors import ZooError

LIGHT = {"annotated_types", "typing_extensions", "yaml", "zoo"}
TYPER = {"typer", "click", "shellingham", "annotated_doc", "rich", "pygments", "markdown_it", "mdurl"}
TYPER |= {"pydantic", "pydantic_core", "typing_inspection"}  # imported by typer where they are installed
C_EXTENSIONS = {"cython_runtime"}
PYTHON = "import zoo; zoo.list_models(); zoo.list_data(); zoo.model_info('wgan_gp'); zoo.Decoder, zoo.register"


def run(code: str, **environment: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported(code: str, **environment: str) -> tuple[str, set[str]]:
    """Run code; return its output, and the packages that it imports beyond the standard library."""
    told = "print('imported:', *{m.partition('.')[0] for m in set(sys.modules) - before})"
    out = run(f"import atexit, sys; before = set(sys.modules); atexit.register(lambda: {told})\n{code}", **environment)
    said, _, names = out.rpartition("imported: ")
    return said, {n for n in names.split() if n not in sys.stdlib_module_names and not n.startswith("_")}


@pytest.mark.parametrize(
    ("code", "allowed", "says"),
    [
        (PYTHON, LIGHT, ""),
        (COMMANDS["zoo --help"], LIGHT | TYPER, "evaluate"),
        (COMMANDS["zoo list"], LIGHT | TYPER, "wgan_gp"),
        (COMMANDS["zoo info <TAB>"], LIGHT | TYPER, "wgan_gp"),
        (COMMANDS["zoo info gan"], LIGHT | TYPER, "latent_dim: 16"),
    ],
    ids=["python", "help", "list", "completion", "info"],
)
def test_looking_around_imports_nothing_heavy(code: str, allowed: set[str], says: str) -> None:
    completing = COMPLETING if code == COMMANDS["zoo info <TAB>"] else {}
    said, packages = imported(code, **completing)
    assert says in said
    assert packages <= allowed | C_EXTENSIONS
    assert "zoo" in packages


NOT_NEEDED = {  # for the first batch of a GAN on digits
    "torchmetrics.functional", "torchmetrics.image", "torchvision", "transformers", "tokenizers", "sacrebleu", "peft",
    "scipy", "sklearn", "pandas", "matplotlib", "torch._inductor.compile_fx", "torch._inductor.lowering",
    "tensorboard.program", "tensorboard.backend", "tensorflow", "onnx", "zoo.evaluation.evaluate",
    "zoo.interop.export.export", "zoo.evaluation.suites.samples", "zoo.models.variational.vae",
    "zoo.models.autoregressive.language_model", "zoo.nn.networks.transformer", "zoo.data.image.torchvision",
}  # fmt: skip


def test_a_training_imports_what_it_needs() -> None:
    seconds, modules = first_step(["model=gan", "data=digits", "trainer.accelerator=cpu"])
    assert seconds > 0
    assert not NOT_NEEDED & modules
    assert {"torch", "pytorch_lightning", "zoo.models.adversarial.gan", "zoo.data.image.digits"} <= modules


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import sys; sys.exit('Traceback ...\\nzoo: no such model.')", "failed: zoo: no such model"),
        ("print('trained in no steps')", "ended before its first step: trained in no steps."),
    ],
)
def test_a_training_that_does_not_begin_is_not_timed(code: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "FIRST_STEP", code)
    with pytest.raises(ZooError, match=told):
        first_step([])


def test_the_table_compares_what_ran_side_by_side() -> None:
    """Differences are taken within rounds, then their median: in a round, a slow machine is slow for both commands."""
    told = Startup({BARE: [1.0, 9.0, 2.0], "first step": [1.5, 8.0, 2.6]}).describe().splitlines()
    assert told[0].endswith("(medians of 3)")
    assert told[2].split() == ["first", "step", "2.60", "+0.50"]


def test_the_bench_times_them_and_writes_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The timed commands are replaced by quick ones, and a server starts once. The first round is discarded."""
    monkeypatch.setattr(startup, "COMMANDS", {BARE: "pass", "zoo --help": COMMANDS["zoo --help"]})
    monkeypatch.setattr(startup, "first_page", cache(startup.first_page))
    steps = iter([99.0, 2.0, 4.0])
    monkeypatch.setattr(startup, "first_step", lambda overrides: (next(steps), set()))
    monkeypatch.setattr("sys.argv", ["startup", "--rounds", "2", "--record", str(tmp_path / "s.json")])
    startup.main()
    said = json.loads((tmp_path / "s.json").read_text())
    assert said["seconds"]["train.py model=gan: first step"] == [2.0, 4.0]
    assert len(said["seconds"][BARE]) == 2
    assert min(said["seconds"]["zoo --help"] + said["seconds"][BARE]) > 0
    assert {"hardware", "torch", "python"} <= said.keys()
    assert "train.py model=gan: first step 3.00" in " ".join(capsys.readouterr().out.split())


# -- torchmetrics ------------------------------------------------------------------------------------------------

STAND_IN = {
    "__init__.py": "import logging\n_logger = logging.getLogger()\nfrom .metric import Metric\nEVERYTHING = 1\n",
    "__about__.py": "__version__ = '9.0'\n",
    "utilities.py": "from torchmetrics import _logger\nfrom torchmetrics.metric import Metric\n",
    "metric.py": "import torchmetrics.utilities\nclass Metric: ...\n",
    "collections.py": "class MetricCollection: ...\n",
}
ASKING = """
from zoo.core.lazy_imports import install
install(); install()
from torchmetrics import Metric
import sys, torchmetrics
print("EVERYTHING" in vars(torchmetrics), len([f for f in sys.meta_path if "zoo" in type(f).__module__]))
print(torchmetrics.EVERYTHING, torchmetrics.Metric is Metric is sys.modules["torchmetrics.metric"].Metric)
try:
    torchmetrics.NOTHING
except AttributeError as error:
    print(error)
"""


@pytest.mark.parametrize("missing", [None, "collections.py", "utilities.py", "__about__.py"])
def test_a_package_of_another_shape_is_imported_as_ever(missing: str | None, tmp_path: Path) -> None:
    (tmp_path / "torchmetrics").mkdir()
    for name, text in STAND_IN.items():
        if name != missing:
            (tmp_path / "torchmetrics" / name).write_text(
                text.replace("import torchmetrics.utilities\n", "\n" * bool(missing))
            )
    said = run(ASKING, PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path])).splitlines()
    assert said == [
        f"{missing is not None} 1",
        "1 True",
        "module 'torchmetrics' has no attribute 'NOTHING'",
    ]


def test_what_is_put_off_comes_when_it_is_asked_for() -> None:
    said = run("""
import sys
from zoo.core.lazy_imports import install
install()
import pytorch_lightning, torch
print("torchmetrics.functional" in sys.modules, "torchmetrics" in sys.modules)
from torchmetrics.functional.image import structural_similarity_index_measure as ssim
x = torch.rand(2, 1, 16, 16)
print(round(float(ssim(x, x)), 6))
import torchmetrics
print(issubclass(torchmetrics.MeanMetric, pytorch_lightning.core.module.Metric), type(torchmetrics).__name__)
mean = torchmetrics.MetricCollection([torchmetrics.MeanMetric()])
mean.update(torch.tensor([1.0, 2.0]))
print(float(mean.compute()["MeanMetric"]))
""")
    assert said.split("\n") == ["False True", "1.0", "True module", "1.5", ""]
