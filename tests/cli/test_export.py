"""Exported files reproduce the model's samples, without the zoo if promised; failures leave no file."""

import errno
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as L
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import zoo
import zoo.interop.export.export
from tests.contracts.specs import (
    CASES,
    MODELS,
    PAIRS,
    SPECS,
    class_of,
    examples,
    fitting,
    make,
    one_recipe_of_each_class,
    slow,
)
from zoo.cli.main import main
from zoo.core import registry
from zoo.core.errors import ZooError
from zoo.core.spaces import Tokens
from zoo.data.loader import make_generator
from zoo.interop.export.export import export
from zoo.interop.export.formats import SUFFIXES, Program, load_exported
from zoo.io.weights_file import pack, unpack
from zoo.models.abilities import SupportsExport
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.models.image_abilities import SupportsImageTranslation
from zoo.models.latent_density import LatentDensity
from zoo.nn.samplers.autoregressive import sample_tokens
from zoo.nn.samplers.sampling_params import SamplingParams

ROOT = Path(__file__).parents[2]
CLASSES = {name: registry.get("model", name) for name in registry.names("model")}
CORED = {name for name, one in CLASSES.items() if hasattr(one, "export_module")}  # others are refused, see below
OWN = [(n, fitting(n)[0]) for n in MODELS if n in CORED]  # one recipe for each class
FIRST = [c.values for c in one_recipe_of_each_class((n, fitting(n)[0]) for n in MODELS) if not c.marks]
FIRST += [("codes_gpt", "image")]
NOISY = [("ddpm", "image"), ("vdm", "image"), ("score_sde", "image")]  # their samplers draw noise at each step
# A U-Net and Heun's sampler, which take long, are in `latent_diffusion`; NOISY has the class of `diffusion`.
SAMPLERS = [*OWN, ("cgan", "vector"), ("dcgan", "image"), ("latent_diffusion", "image"), *NOISY]  # others: training
SAMPLERS.remove(("diffusion", "image"))
# Traced are one model for each `export_module`, labels of vectors, and convolutions. Tracing takes seconds.
TRACED = list({CLASSES[class_of(n)].export_module.__qualname__: (n, key) for n, key in reversed(OWN)}.values())
TRACED += [("cgan", "vector"), ("dcgan", "image"), ("latent_diffusion", "image"), ("ddpm", "image")]
TRACED = [case for case in TRACED if case not in (("diffusion", "image"), ("two_stage", "image"))]
NUMBERS = [("ae", "image"), ("gan", "image"), ("cvae", "wide")]  # gpt is run from its file below


def chosen(cases: list[tuple[str, str]]) -> list:
    """All cases of models with a core, `slow` except for some."""
    cored = [(n, key) for n, key in CASES if n in PAIRS or zoo.model_info(n).registered in CORED]
    return [pytest.param(*c, marks=() if c in cases else pytest.mark.slow, id="-".join(c)) for c in cored]


def ready(name: str, key: str = "image") -> Model:
    """A model none of whose weights is without influence, as zeros are in the beginning."""
    model = make(name, key).eval()
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                noise = torch.randn_like(value).clamp(min=-2)  # a variance stays positive
                value.add_(0.1 * noise * value.abs().clamp(min=0.5))
        first = getattr(model, "first_stage", model)
        if isinstance(first, LatentDensity) and first.density is not None:
            first.density.fit(first.latents_to_fit(examples(model.spec, 100)))
    return model


def saved(model: Model, folder: Path) -> Path:
    """A checkpoint of it, as Lightning writes it."""
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.strategy.connect(model)
    trainer.save_checkpoint(folder / "best.ckpt")
    return folder / "best.ckpt"


def drawn(model: Model, n: int) -> torch.Tensor:
    if supports(model, SupportsImageTranslation):
        return model.translate(examples(model.spec, n).y)
    options = {"max_new_tokens": 8} if isinstance(model.spec.x, Tokens) else {}
    return model.sample(n, generator=make_generator(n), **options)


def compare(model: Model, program: Program, within: float) -> None:
    """The file's samples are the model's; other random numbers give other ones."""
    core = model.export_module().eval()
    if core.start_tokens:
        tokens = core.draw(5, make_generator(1))[0]
        for some in (tokens, tokens[:1, :1], tokens[:2, :7]):
            torch.testing.assert_close(program(some), core(some).detach(), rtol=within, atol=within)
        assert not torch.allclose(program(tokens), core(tokens.roll(1, 1)), atol=1e-3)
        begin, written = torch.full((2, 1), core.start_tokens[0]), 12
        while begin.shape[1] <= written:
            begin = torch.cat([begin, program(begin)[:, -1:].argmax(-1)], 1)
        rows, _ = next(
            sample_tokens(model.net, begin[:, :1].tolist(), SamplingParams(temperature=0), block_size=written)
        )
        assert torch.equal(begin[:, 1:], rows), "greedy, without a cache and with one"
        return
    for n in (1, 9):
        given = core.draw(n, make_generator(n))
        translates = supports(model, SupportsImageTranslation)
        wanted = model.translate(*given) if translates else model.sample(n, generator=make_generator(n))
        assert torch.equal(core(*core.draw(n, make_generator(n))), wanted), "the core is the sampler"
        torch.testing.assert_close(program(*core.draw(n, make_generator(n))), wanted, rtol=0, atol=within)
        assert not torch.allclose(program(*core.draw(n, make_generator(n + 1))), wanted, atol=1e-3)


@pytest.mark.parametrize(("name", "key"), chosen(FIRST))
def test_safetensors_give_back_the_model(name: str, key: str, tmp_path: Path) -> None:
    model = ready(name, key)
    again = zoo.load(export(saved(model, tmp_path), "safetensors"))
    assert type(again) is type(model)
    assert again.spec == model.spec
    assert json.dumps(dict(again.hparams)) == json.dumps(dict(model.hparams))
    assert torch.equal(drawn(again, 3), drawn(model, 3))
    for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("name", "key"), chosen(SAMPLERS))
def test_the_core_of_a_model_is_its_sampler(name: str, key: str) -> None:
    model = ready(name, key)
    if supports(model, SupportsExport):
        compare(model, Program(model.export_module().eval(), {}), 1e-5)


@pytest.mark.parametrize(("name", "key"), chosen(TRACED))
def test_torch_export_gives_the_same_samples(name: str, key: str, tmp_path: Path) -> None:
    model = ready(name, key)
    if not supports(model, SupportsExport):  # a pass of the network for each value
        with pytest.raises(ZooError, match="has no core"):
            export(saved(model, tmp_path), "torch_export")
        return
    path = export(saved(model, tmp_path), "torch_export")
    compare(model, load_exported(path), 1e-5)
    for folder in (ROOT, Path(torch.__file__).parent):
        assert str(folder).encode() not in path.read_bytes(), "a file to give away names no folder of this machine"


@pytest.mark.parametrize(("name", "key"), chosen(NUMBERS))
def test_onnx_gives_the_same_samples(name: str, key: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    model = ready(name, key)
    path = export(saved(model, tmp_path), "onnx")
    compare(model, load_exported(path), 1e-5)
    assert str(ROOT).encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("pictures", "texts"),
    [("torch_export", "onnx"), *slow(("onnx", "torch_export"))],
)
def test_exported_files_run_without_the_zoo(
    pictures: str, texts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The code of the documentation, in a process where neither zoo nor Lightning can be imported."""
    if importlib.util.find_spec("onnxruntime") is None:
        pictures = texts = "torch_export"
    page = (ROOT / ".github/docs/exporting.md").read_text(encoding="utf-8")
    code = dict(zip(SUFFIXES, re.findall(r"```python\n(.*?)```", page, re.DOTALL), strict=True))
    script = ["import sys, torch", "sys.modules.update(zoo=None, pytorch_lightning=None, lightning=None)"]
    models = {"cvae": ready("cvae"), "gpt": ready("gpt", "tokens")}
    for (name, model), kind in zip(models.items(), (pictures, texts), strict=True):
        (tmp_path / name).mkdir()
        path = export(saved(model, tmp_path / name), kind)
        assert "exporting.md" in capsys.readouterr().out
        script += ["torch.manual_seed(3)", code[kind].replace(f'"model{SUFFIXES[kind]}"', repr(str(path)))]
        script += [f"torch.save(torch.as_tensor(samples), {str(tmp_path / f'{name}.pt')!r})"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(script)], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""}
    )
    assert done.returncode == 0, done.stderr
    images, tokens = (torch.load(tmp_path / f"{name}.pt") for name in models)
    assert images.shape == (64, 1, 8, 8)
    assert 0 <= images.min() < images.max() <= 1
    assert tokens.shape == (4, 16)
    assert 0 <= tokens.min() < tokens.max() < 20
    if pictures == "torch_export":  # ONNX draws by numpy
        core, generator = models["cvae"].export_module(), torch.Generator().manual_seed(3)
        noise = torch.randn(64, *core.inputs[0].size, generator=generator)
        labels = torch.multinomial(torch.tensor(core.inputs[1].shares), 64, replacement=True, generator=generator)
        with torch.no_grad():
            wanted = core(noise, labels)
        torch.testing.assert_close(images, wanted, rtol=0, atol=1e-5)


def test_a_file_says_what_it_holds(tmp_path: Path) -> None:
    model = ready("ae", "vector")
    source = saved(model, tmp_path)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    with safe_open(export(source, "safetensors"), "pt") as file:
        held = json.loads(file.metadata()["zoo"])
    for note in (held, load_exported(export(source, "torch_export")).note):
        assert note["model"] == "ae"
        assert zoo.DataSpec.from_dict(note["spec"]) == model.spec
        assert note["hyper_parameters"]["latent_dim"] == model.latent_dim
        assert note["checkpoint"]["sha256"] == digest
        assert note["versions"]["torch"] == torch.__version__.partition("+")[0]
        assert [(i["name"], i["distribution"]) for i in note["inputs"]] == [("choice", "uniform"), ("noise", "normal")]


def test_tied_weights_are_written_once(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.other = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
            self.two.weight = self.one.weight

    model, path = Tied(), tmp_path / "tied.safetensors"
    path.write_bytes(pack(model.state_dict(), {"model": "tied", "spec": {}, "hyper_parameters": {}}))
    with safe_open(path, "pt") as file:
        assert len(list(file.keys())) == 5
    state = unpack(path)["state_dict"]
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = export(saved(ready("vae"), tmp_path), "safetensors")
    whole = path.read_bytes()
    for content in (whole[:-100], whole[:20], b"", b"\x00" * 100):
        path.write_bytes(content)
        with pytest.raises(ZooError, match="damaged"):
            zoo.load(path)
    for metadata in (None, {"zoo": "no json"}, {"zoo": "[]"}, {"zoo": '{"model": "vae"}'}):
        save_file({"x": torch.zeros(1)}, path, metadata)
        with pytest.raises(ZooError, match="not written by the zoo"):
            zoo.load(path)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(ready("vae"), tmp_path_factory.mktemp("run"))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["safetensors", "torch_export"])
def test_a_full_disk_leaves_what_was_there(
    kind: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / f"mine{SUFFIXES[kind]}"
    out.write_text("precious")

    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ZooError, match=r"mine.* cannot be written \(no space left on device\)"):
        export(source, kind, out)
    assert files(tmp_path) == {out.name: b"precious"}
    with pytest.raises(ZooError, match="cannot be written"):
        export(source, kind, out / "in-a-file" / out.name)


@pytest.mark.parametrize("kind", ["safetensors", "torch_export"])
@pytest.mark.parametrize("off", [1e-4, float("nan")])
def test_a_file_with_other_samples_is_not_kept(
    kind: str, off: float, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bias of the layer that gives the data is moved on its way into the file."""
    real = {"safetensors": zoo.interop.export.export.pack, "torch_export": zoo.interop.export.export.to_pt2}[kind]

    def spoiled(what, note):
        state = dict(what) if kind == "safetensors" else what.state_dict()
        last = [k for k in state if "decoder" in k or "parts" in k][-1 if kind == "safetensors" else -2]
        wrong = {**state, last: state[last] + off}
        if kind == "safetensors":
            return real(wrong, note)
        what.load_state_dict(wrong)
        content = real(what, note)
        what.load_state_dict({**state, last: wrong[last] - off})
        return content

    monkeypatch.setattr(zoo.interop.export.export, real.__name__, spoiled)
    out = tmp_path / f"mine{SUFFIXES[kind]}"
    out.write_text("precious")
    with pytest.raises(ZooError, match="not kept"):
        export(source, kind, out)
    assert files(tmp_path) == {out.name: b"precious"}


def test_a_model_without_a_core_goes_into_safetensors_only(tmp_path: Path) -> None:
    class Bare(Model):
        registered_name = "bare"

        def __init__(self, spec: zoo.DataSpec) -> None:
            super().__init__(spec)
            self.mean = nn.Parameter(torch.randn(spec.shape))

        def sample(self, n, *, condition=None, generator=None, **options):
            return self.mean + self.randn(n, *self.spec.shape, generator=generator)

    with registry.isolated():
        zoo.register("model", "bare")(Bare)
        source = saved(Bare(SPECS["vector"]), tmp_path)
        for kind in ("torch_export", "onnx"):
            with pytest.raises(ZooError, match=r"model bare has no core\(\).*use --format safetensors"):
                export(source, kind)
        assert set(files(tmp_path)) == {source.name}
        assert zoo.load(export(source, "safetensors")).registered_name == "bare"


def test_an_autoencoder_that_cannot_sample_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="cannot sample yet"):
        export(saved(make("ae", "image"), tmp_path), "torch_export")
    assert not (tmp_path / "export").exists()


def test_missing_packages_are_named(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else real(name))
    with pytest.raises(ZooError, match="needs onnxscript: pip install onnx onnxscript onnxruntime"):
        export(source, "onnx", tmp_path / "x.onnx")


def test_the_command(cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    saved(ready("cgan", "vector"), run)
    done = cli("export", "run", entry=main)
    assert done.code == 0, done.err
    assert "run/export/model.safetensors" in done.out
    assert "at most 0.0e+00" in done.out
    assert zoo.load("run/export/model.safetensors").conditional
    assert cli("export", "run", "--format", "torch_export", "--out", "b.pt2", entry=main).code == 0
    assert Path("b.pt2").is_file()
    for arguments, message in {
        ("run", "--out", "x.bin"): "must end in .safetensors",
        ("nowhere",): "there is no run",
    }.items():
        refused = cli("export", *arguments, entry=main)
        assert refused.code == 1
        assert message in refused.err
    assert cli("export", "run", "--format", "pickle", entry=main).code == 2
    assert SPECS["vector"] == zoo.load("run").spec
