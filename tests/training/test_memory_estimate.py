"""Memory before training: the estimate is compared with what autograd keeps in a real training step."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import zoo
from zoo.core.spaces import Image, Tokens
from zoo.data.batch import Batch
from zoo.io.memory import available_memory
from zoo.nn.optim.base import build_config
from zoo.training import memory_estimate
from zoo.training.memory_estimate import MemoryEstimate, SavedBytes, activation_bytes, estimate, explain, state_share

TEXT, PICTURE = Tokens(64, 40), Image(1, 16, 16)
UNET = {"name": "unet", "width": 16}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "gpt": (TEXT, {"backbone": {"d_model": 32, "n_layers": 2, "n_heads": 2}}),
    "ddpm": (PICTURE, {"denoiser": UNET}),
    "gan": (PICTURE, {}),
}


def made(name: str) -> zoo.Model:
    torch.manual_seed(0)
    space, settings = CASES[name]
    return zoo.create_model(name, data=zoo.DataSpec(space, name="data"), **settings)


def samples(name: str, n: int) -> Batch:
    torch.manual_seed(0)
    if name == "gpt":
        return Batch(*torch.randint(40, (2, n, 64)))
    return Batch(torch.rand(n, 1, 16, 16), torch.zeros(n, dtype=torch.int64))


def peak(name: str, n: int) -> int:
    """Most bytes that autograd keeps at once in a training step of the real model; optimizers do nothing."""
    model: Any = made(name).train()
    saved = SavedBytes([*model.parameters(), *model.buffers()])
    with saved.hooks():
        if model.automatic_optimization:
            model.loss(samples(name, n))["loss"].backward()
        else:
            total = SimpleNamespace(ready=1)
            progress = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(total=total)))
            model.trainer = SimpleNamespace(world_size=1, fit_loop=progress, log_every_n_steps=1)
            idle = SimpleNamespace(step=lambda: None, zero_grad=lambda *given: None, param_groups=[])
            model.optimizers, model.lr_schedulers = lambda: [idle, idle], lambda: []
            model.manual_backward = lambda loss, **given: loss.backward(**given)
            model.log_terms = model.step_optimizer = model.step_player = lambda *given: None
            model.training_step(samples(name, n), 0)
    return saved.peak


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("exact", [False, True])
def test_it_is_within_a_fifth_of_a_real_step(name: str, exact: bool) -> None:
    real = peak(name, 12)
    build = (lambda: made(name)) if exact else (lambda: memory_estimate.build_on_meta(lambda: made(name)))
    found = activation_bytes(build, samples(name, 2), 12, exact=exact)  # type: ignore[arg-type]
    assert found == pytest.approx(real, rel=0.2 if exact else 0.5), "meta kernels are a first look"
    other = activation_bytes(build, samples(name, 2), 24, exact=exact)  # type: ignore[arg-type]
    assert other != pytest.approx(real, rel=0.2), "negative control: another batch size"


@pytest.mark.parametrize(("name", "matrix", "vector"), [("adamw", 2, 2), ("sgd", 0, 0), ("muon", 1, 2)])
def test_the_state_of_optimizers(name: str, matrix: float, vector: float) -> None:
    config = build_config(name)
    if name == "sgd":
        config.momentum = 0.0  # type: ignore[attr-defined]
    assert state_share(config, True, True) == matrix
    assert state_share(config, False, False) == vector


def test_parts_add_up() -> None:
    found = estimate(lambda: made("gpt"), samples("gpt", 2), 4, build_config("adamw"))
    model = made("gpt")
    parameters = sum(4 * p.numel() for p in model.parameters())
    assert found is not None
    assert found.gradients == parameters
    assert found.optimizer == 2 * parameters
    assert found.weights == parameters + sum(b.nbytes for b in model.buffers())
    assert found.total == found.fixed + (found.activations or 0)


def test_it_does_not_draw_random_numbers() -> None:
    batch = samples("ddpm", 2)
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    for exact in (False, True):
        estimate(lambda: made("ddpm"), batch, 4, build_config("adamw"), exact=exact)
    assert torch.equal(torch.rand(3), wanted)


def test_the_remedy_is_a_batch_that_fits() -> None:
    needs = MemoryEstimate(10**9, 10**9, 2 * 10**9, 8 * 10**9)
    assert explain(needs, 8 * 10**9, 64) == (
        "data.batch_size=64: training needs about 12.0 GB (weights 1.0, gradients 1.0, optimizer 2.0, "
        "activations 8.0), there are 8.0. Set data.batch_size=32."
    )
    assert explain(needs, 3 * 10**9, 64).endswith("Choose a smaller model.")


@pytest.mark.parametrize(("share", "code", "told"), [(0.3, 1, True), (0.8, 0, True), (3.0, 0, False)])
def test_a_clear_excess_is_refused_and_a_close_one_is_told(
    share: float, code: int, told: bool, cli: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = zoo.create_data("digits").spec
    model = zoo.create_model("ae", data=spec)
    batch = Batch(torch.rand(2, *spec.shape), torch.zeros(2, dtype=torch.int64))
    needs = estimate(lambda: zoo.create_model("ae", data=spec), batch, 32, model.optimizer_config)
    assert needs is not None
    have = int(share * needs.total)
    monkeypatch.setattr(memory_estimate, "available_memory", lambda device: have)
    done = cli("model=ae", "data=digits", "data.batch_size=32", "trainer=smoke", "hydra.run.dir=run")
    assert done.code == code, done.err
    assert ("data.batch_size=32: training needs about" in done.err + done.out) is told
    assert (tmp_path / "run").exists() is (code == 0), "a refused run leaves nothing"


def test_the_slow_estimate_is_left_out_where_it_changes_nothing(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    exact: list[bool] = []

    def watched(*given: Any, **named: Any) -> MemoryEstimate | None:
        exact.append(bool(named.get("exact")))
        return estimate(*given, **named)

    monkeypatch.setattr(memory_estimate, "estimate", watched)
    model = zoo.create_model("ae", data=zoo.create_data("digits").spec)
    weights = sum(p.nbytes for p in model.parameters())
    for have, wanted in ((weights, [False]), (4 * weights + 1000, [False, True])):  # no batch fits; a small one does
        exact.clear()
        monkeypatch.setattr(memory_estimate, "available_memory", lambda device, have=have: have)
        cli("model=ae", "data=digits", "trainer=smoke", "hydra.run.dir=run")
        assert exact == wanted


def test_limits_of_containers_count(tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    assert (available_memory(cpu) or 0) > 2**20
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 4 kB\nSwapFree: 2 kB\n")
    assert available_memory(cpu, tmp_path) == 6 * 1024
    group = tmp_path / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("5000\n")
    (group / "memory.current").write_text("2000\n")
    assert available_memory(cpu, tmp_path) == 3000
    (group / "memory.max").write_text("max\n")
    assert available_memory(cpu, tmp_path) == 6 * 1024


def test_a_model_is_not_allocated_before_it_is_refused(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []

    class Watched(torch.nn.Linear):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            built.append(self.weight.device.type)

    monkeypatch.setattr(torch.nn, "Linear", Watched)
    words = ("model=ae", "data=digits", "trainer=smoke", "hydra.run.dir=run")
    monkeypatch.setattr(memory_estimate, "available_memory", lambda device: 1000)
    assert cli(*words).code == 1
    assert set(built) == {"meta"}
    monkeypatch.setattr(memory_estimate, "available_memory", lambda device: 10**12)
    assert cli(*words).code == 0
    assert "cpu" in built, "negative control: a training that fits"
