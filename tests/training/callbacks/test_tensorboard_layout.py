"""Event files of several runs, read by TensorBoard itself."""

import json
import re
import signal
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin
from tensorboard.plugins.hparams.backend_context import Context

import zoo
from tests.contracts.specs import CASES, SPECS, configured, make
from zoo.core import registry
from zoo.evaluation.context import Metric
from zoo.evaluation.evaluate import Evaluation, record
from zoo.io.vetting import build_on_meta
from zoo.runs.folder import RunFolder
from zoo.runs.loggers import EVENTS
from zoo.training.callbacks import tensorboard_layout
from zoo.training.callbacks.graceful_stop import GracefulStop
from zoo.training.callbacks.tensorboard_layout import TensorBoardLayout

IMAGES = torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(0))
POINTS = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
DATA = {"vae": IMAGES, "gan": POINTS, "image_gpt": IMAGES}
SMALL = {"max_steps": 2, "val_check_interval": 2, "log_every_n_steps": 1, "progress": False, "accelerator": "cpu"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep over three families."""
    root = tmp_path_factory.mktemp("sweep")
    for name, data in DATA.items():
        zoo.fit(name, data, folder=root / name, **SMALL)
    record(evaluation(root))
    return root


def evaluation(root: Path) -> Evaluation:
    scores = {"nll@6_test": Metric(3.0, "lower", parts=(1.0, 2.0))}
    facts = {"protocol": {}, "sha256": "", "features": {}, "batches": 2}
    return Evaluation(root / "vae" / "best.ckpt", facts, scores)


def reader(folder: Path) -> EventMultiplexer:
    return EventMultiplexer(tensor_size_guidance={"images": 0}).AddRunsFromDirectory(str(folder)).Reload()


def scalars(board: EventMultiplexer, run: str) -> set[str]:
    found = board.GetAccumulator(run).summary_metadata.items()
    return {tag for tag, note in found if note.plugin_data.plugin_name == "scalars"}


def test_each_run_is_listed_once(folder: Path) -> None:
    assert set(reader(folder).Runs()) == set(DATA)


def test_losses_stand_first(folder: Path) -> None:
    board = reader(folder)
    for run in DATA:
        shown = {"scalars", "images", "histograms"}  # of the page of time series, which is sorted by tag
        notes = board.GetAccumulator(run).summary_metadata.items()
        tags = sorted(tag for tag, note in notes if note.plugin_data.plugin_name in shown)
        assert tags[0].startswith("train/")
        assert [tag.partition("/")[0] for tag in tags if tag.startswith(("train", "val"))] == [
            tag.partition("/")[0] for tag in tags[: sum(tag.startswith(("train/", "val/")) for tag in tags)]
        ], "train and val stand together, before all others"
    assert "view/samples" in tags


def test_a_chart_shows_runs_that_its_title_is_true_for(folder: Path) -> None:
    board = reader(folder)
    plugin = CustomScalarsPlugin(TBContext(data_provider=MultiplexerDataProvider(board, str(folder))))
    layout = json.loads(plugin.layout_impl(RequestContext(), ""))
    (category,) = layout["category"]
    charts = {chart["title"]: chart["multiline"]["tag"] for chart in category["chart"]}
    assert len(charts) == len(category["chart"]), "no title twice"
    for run, name in zip(DATA, DATA, strict=True):
        own = zoo.load(folder / name).charts()
        for title, patterns in charts.items():
            found = {tag for tag in scalars(board, run) if any(re.match(pattern, tag) for pattern in patterns)}
            assert found <= set(own.get(title, ())), (run, title)
    assert "logits" in charts


def test_equal_tags_have_equal_titles_in_all_models() -> None:
    titles: dict[str, str] = {}
    classes = {zoo.model_info(name).registered: key for name, key in CASES if name in zoo.list_models()}
    for name, key in classes.items():
        settings = deepcopy(configured(name, key == "vector", True))
        model = build_on_meta(lambda given=settings, key=key: registry.build("model", given, SPECS[key]), most=10_000)
        for title, tags in model.charts().items():
            for tag in tags:
                assert titles.setdefault(tag, title) == title, (name, tag)


def test_the_table_of_hyperparameters_has_the_columns_of_every_run(folder: Path) -> None:
    board = reader(folder)
    context = Context(TBContext(data_provider=MultiplexerDataProvider(board, str(folder))))
    found = context.hparams_metadata(RequestContext(), "")
    assert set(found) == set(DATA)
    listed = context.hparams_from_data_provider(RequestContext(), "", 0)
    table = context.experiment_from_metadata(RequestContext(), "", True, found, listed)
    columns = {column.name for column in table.hparam_infos}
    assert {"model.latent_dim", "model.loss", "model.backbone.d_model", "seed", "trainer.max_steps"} <= columns
    metrics = {column.name.tag for column in table.metric_infos}
    assert {"val/loss", "val/fd", "zoo_evaluate/best/nll@6_test"} <= metrics


def test_distributions_are_not_written(folder: Path) -> None:
    board = reader(folder)
    notes = [note for run in DATA for note in board.GetAccumulator(run).summary_metadata.values()]
    assert "histograms" not in {note.plugin_data.plugin_name for note in notes}


def test_latents_of_unlabelled_pictures_are_in_the_projector(folder: Path) -> None:
    config = (folder / "vae" / "projector_config.pbtxt").read_text()
    assert "sprite" in config
    assert "metadata_path" not in config
    assert len(next((folder / "vae").rglob("tensors.tsv")).read_text().splitlines()) == 6


def test_noise_is_not_in_the_projector(tmp_path: Path) -> None:
    """The latents of diffusion and flows are normal noise as large as the data."""
    zoo.fit("diffusion", POINTS, folder=tmp_path, **SMALL)
    assert not (tmp_path / "projector_config.pbtxt").exists()
    assert {"train/loss", "val/loss"} <= scalars(reader(tmp_path), ".")


def test_scores_survive_a_resume_and_wait_for_a_live_run(folder: Path) -> None:
    run = RunFolder(folder / "vae")
    before = sorted(run.folder.glob(EVENTS))
    run.acquire_lock(resume=True)
    record(evaluation(folder))
    run.release_lock()
    assert sorted(run.folder.glob(EVENTS)) == before
    zoo.fit("vae", IMAGES, folder=run.folder, resume=True, **{**SMALL, "max_steps": 4})
    board = reader(folder)
    assert "zoo_evaluate/best/nll@6_test" in scalars(board, "vae")
    assert [event.step for event in board.Tensors("vae", "train/loss")] == [0, 1, 2, 3]


def test_a_signal_ends_the_map_of_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latents of a diffusion model take minutes on a processor."""
    stop, interruptible = GracefulStop(None), []  # type: ignore[arg-type]

    def map_latents(*given: object) -> None:
        interruptible.append(stop.drawing)
        stop.receive(signal.SIGTERM, None)
        raise AssertionError("The signal did not end it.")

    monkeypatch.setattr(tensorboard_layout, "summary_writer", lambda trainer: object())
    monkeypatch.setattr(TensorBoardLayout, "row", lambda *given, **options: None)
    monkeypatch.setattr(TensorBoardLayout, "map_latents", map_latents)
    layout, trainer = object.__new__(TensorBoardLayout), SimpleNamespace(callbacks=[stop], datamodule=None)
    layout.on_train_end(trainer, make("vae", "image"))  # type: ignore[arg-type]
    assert interruptible == [True]
    assert stop.received == signal.SIGTERM
