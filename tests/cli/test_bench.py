"""`zoo bench`: its reports and counts, independent of the speed of the machine."""

import json

import pytest
import torch
from torch import nn

import zoo
from tests.contracts.specs import SPECS, examples
from zoo.benchmarks.profiling import FlopCounter, memory, time_breakdown
from zoo.benchmarks.reference_loop import ReferenceLoop
from zoo.cli.main import app, main
from zoo.config.compose import compose
from zoo.training.train import build_data, build_model


class Data(zoo.DataModule):
    def __init__(self, spec: zoo.DataSpec) -> None:
        super().__init__(batch_size=8, seed=0)
        self.what = spec
        self.setup()

    @property
    def spec(self) -> zoo.DataSpec:
        return self.what

    def load(self) -> None:
        self.train = self.val = self.test = tuple(examples(self.spec, 40))


class Listed:
    """A loader of given batches, which draws no random numbers."""

    def __init__(self, batches: list) -> None:
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def test_it_measures_through_the_trainer_and_writes_a_record(cli, tmp_path) -> None:
    out = tmp_path / "speed.json"
    options = ("--rounds", "2", "--seconds", "0.01", "--record", str(out))
    done = cli("bench", "model=ae", "model.encoder.width=8", "data.batch_size=32", *options, entry=main)
    assert done.code == 0, done.err
    assert "of bare speed" in done.out
    said = json.loads(out.read_text())
    (row,) = said["measured"]
    assert (row["model"], row["data"], row["batch"], row["unit"]) == ("ae", "digits", 32, "samples")
    assert row["per_second"] == pytest.approx(32e3 / row["ms"])
    assert row["ratio"] > 0
    assert row["flops"] > 0
    assert 0 <= row["data_share"] < 1
    assert "time of a step: " in done.out
    assert 0.3 < sum(row["shares"].values()) <= 1
    assert said["timing"]["rounds"] == 2
    assert said["threads"] == torch.get_num_threads()
    assert "commit" not in said
    assert not [path for path in tmp_path.iterdir() if path != out], "a benchmark leaves nothing behind"


def test_growth_is_a_record(cli, tmp_path) -> None:
    out = tmp_path / "growth.json"
    options = ("--rounds", "1", "--seconds", "0.01", "--grow", "data.batch_size=8,32", "--record", str(out))
    done = cli("bench", "model=ae", *options, entry=main)
    assert done.code == 0, done.err
    said = json.loads(out.read_text())
    assert [row["batch"] for row in said["measured"]] == [8, 32]
    assert said["exponents"]["operations"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("arguments", "measured"),
    [
        (["model=gan"], "of_decoder"),
        (["model=vae"], "of_decoder"),
        (["model=image_gpt", "model.backbone.d_model=8", "model.backbone.n_layers=1", "data.batch_size=2"], "speed_up"),
    ],
    ids=["gan", "vae", "image_gpt"],
)
def test_sampling_is_measured(cli, tmp_path, arguments: list[str], measured: str) -> None:
    out = tmp_path / "pace.json"
    done = cli(
        "bench", *arguments, "--sampling", "--rounds", "1", "--seconds", "0.01", "--record", str(out), entry=main
    )
    assert done.code == 0, done.err
    (row,) = json.loads(out.read_text())["measured"]
    assert row[measured] > 0
    assert row["per_second"] == pytest.approx(1e3 * row["batch"] / row["ms"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["model=gmm"], "fitted once"),
        (["model=ae", "--against", "speed"], "Use bare or none"),
        (["model=aee"], "did you mean"),
    ],
)
def test_what_cannot_be_measured_is_refused(cli, arguments, told) -> None:
    done = cli("bench", *arguments, entry=main)
    assert done.code == 1
    assert told in done.err
    assert done.err.count("\n") == 1


def test_the_command_says_what_it_does() -> None:
    assert "bench" in [command.name for command in app.registered_commands]


@pytest.mark.parametrize(("name", "key"), [("ae", "image"), ("vae", "vector"), ("gpt", "tokens")])
def test_the_hand_written_loop_takes_the_same_steps(name: str, key: str) -> None:
    """As an independent loop over the same batches."""
    torch.manual_seed(0)
    one = zoo.create_model(name, data=SPECS[key])
    torch.manual_seed(0)
    two = zoo.create_model(name, data=SPECS[key])
    data, batches = Data(SPECS[key]), 6
    torch.manual_seed(1)
    ReferenceLoop(one, data, batches=100).run(batches)
    torch.manual_seed(1)
    loop = ReferenceLoop(two, data, batches=100)
    for _ in range(batches):
        loop.clock.ready += 1
        two.zero_grad()
        two.loss(next(loop.batches))["loss"].backward()
        loop.optimizer.step()
        loop.schedule.step()
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_the_players_of_the_hand_written_loop_take_the_trainers_steps() -> None:
    """Bit for bit those of `zoo.models.adversarial.gan`, penalties at every second step included."""
    import pytorch_lightning as L

    def made() -> zoo.Model:
        torch.manual_seed(0)
        return zoo.create_model("gan", data=SPECS["image"], lazy_reg_interval=2, n_critic=2)

    one, two, data = made(), made(), Data(SPECS["image"])
    hand = ReferenceLoop(one, data, batches=1000)
    torch.manual_seed(1)
    hand.run(5)
    trainer = L.Trainer(
        accelerator="cpu", max_steps=two.optimizer_steps(1000), max_epochs=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    taken = ReferenceLoop(made(), data).batches  # the same order
    loader = Listed([next(taken) for _ in range(5)])
    torch.manual_seed(1)
    trainer.fit(two, loader)
    for (key, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


def test_operations_are_those_of_the_closed_form() -> None:
    """2 m k n for a product; twice that again for its gradients; attention as its two products."""
    layer, x = nn.Linear(5, 7, bias=False), torch.randn(3, 5, requires_grad=True)
    with FlopCounter() as counted:
        layer(x).sum().backward()
    assert counted.total == 3 * 2 * 3 * 5 * 7
    q = torch.randn(2, 4, 6, 8)
    with FlopCounter() as counted:
        nn.functional.scaled_dot_product_attention(q, q, q)
    assert counted.total == 2 * (2 * 2 * 4 * 6 * 6 * 8)


def test_operations_of_a_gradients_gradient() -> None:
    """Where torch's own counter fails: a penalty on the slope of a linear map takes one product more each way."""
    layer, x = nn.Linear(5, 7, bias=False), torch.randn(3, 5, requires_grad=True)
    with FlopCounter() as counted:
        (slope,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
        slope.square().sum().backward()
    assert counted.total == 3 * 2 * 3 * 5 * 7  # forward, its gradient, and that one's gradient with respect to weights


def test_memory_is_what_tensors_take() -> None:
    mega = 2**20

    def work() -> None:
        a = torch.ones(mega)
        b = torch.ones(2 * mega)
        del a, b
        torch.ones(mega)

    assert memory(work, torch.device("cpu")) == pytest.approx(12 * mega, rel=0.01)


def test_the_bench_builds_what_train_builds() -> None:
    cfg = compose("model=ae")
    data = build_data(cfg)
    assert ReferenceLoop(build_model(cfg, data), data).optimizer.defaults["lr"] == cfg.model.optimizer.lr


def test_shares_name_what_takes_the_time() -> None:
    a = torch.randn(600, 600)
    found = time_breakdown(lambda: (a @ a, a + a), torch.device("cpu"))
    assert next(iter(found)) == "mm"
    assert found["mm"] > found["add"] > 0
