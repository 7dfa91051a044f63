"""A trained model for other programs: safetensors, torch.export or ONNX, checked against the model before it is kept.

What PyTorch and ONNX files hold is the model's `core` (see `zoo.nn.samplers.exportable`): random numbers -> data, or tokens -> logits.
They need neither the zoo nor Lightning; `usage` writes the lines that draw samples from them.
"""

import importlib.util
import io
import json
import math
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.core.errors import CheckpointError
from zoo.data.loader import make_generator
from zoo.io.atomic import atomic_replace, sha256
from zoo.io.weights_file import pack, unpack
from zoo.models.abilities import SupportsExport, supports
from zoo.models.base import GenerativeModel
from zoo.nn.samplers.exportable import ExportableSampler
from zoo.runs.checkpoint import find_checkpoint, read_checkpoint, restore_model

Format = Literal["safetensors", "torch_export", "onnx"]
SUFFIXES: dict[str, str] = {"safetensors": ".safetensors", "torch_export": ".pt2", "onnx": ".onnx"}
ONNX = ("onnx", "onnxscript", "onnxruntime")
ONNX_LIMIT = 2_000_000_000  # bytes: protocol buffers end at 2 GiB
TOLERANCE = 1e-5  # in samples and probabilities, which are of the size of one; larger samples by their size
NOTE = "zoo.json"  # the note's name in a .pt2 archive; in the metadata of the others it is "zoo"


class Program:
    """An exported sampler, run by PyTorch or onnxruntime alone.

    Args:
        run: random numbers (B, ...) each -> data (B, *shape), or tokens (B, T) -> logits (B, T, V).
        note: what the file says of itself: "model", "spec", "inputs", "begins", "checkpoint", "versions" ...
    """

    def __init__(self, run: Callable[..., Tensor], note: dict[str, Any]) -> None:
        self.run, self.note = run, note

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Run it."""
        with torch.no_grad():
            return self.run(*inputs)


def export(run: Path, kind: Format = "safetensors", out: Path | None = None) -> Path:
    """Write a run's best weights (or a checkpoint) in another format, and print how to use it.

    The file appears only when it has been read again and has given the model's samples.

    Args:
        run: run folder or checkpoint file.
        kind: the format.
        out: the file; None is `export/model` in the run's folder, with the format's suffix.

    Raises:
        CheckpointError: no such run; a model without a core; missing packages; a place that cannot be written;
            samples that
            differ. Nothing was written, and what was there before is whole.
    """
    source = find_checkpoint(run)
    if kind == "onnx" and (missing := [name for name in ONNX if importlib.util.find_spec(name) is None]):
        raise CheckpointError(f"--format onnx needs {' and '.join(missing)}: pip install {' '.join(ONNX)}")
    out = out or source.parent / "export" / f"model{SUFFIXES[kind]}"
    if out.suffix != SUFFIXES[kind]:
        raise CheckpointError(f"--out {out} must end in {SUFFIXES[kind]}, as --format {kind} does.")
    model = restore_model(read_checkpoint(source))
    core = export_module_of(model, kind)
    note = describe(model, core, source)
    if kind == "safetensors":
        content = pack(model.state_dict(), note)
    else:
        assert core is not None
        content = to_pt2(core, note) if kind == "torch_export" else to_onnx(core, note)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_replace(out) as draft:
            draft.write_bytes(content)
            off = max_abs_error(model, core, draft, kind)
            if not off <= TOLERANCE:
                raise CheckpointError(
                    f"the {kind} file of {source} gives samples that differ from the model's by {off:.1e}, more "
                    f"than {TOLERANCE:.0e}: it was not kept. Please report it, with the run's config.yaml."
                )
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CheckpointError(
            f"{out} cannot be written ({reason}): make room, or choose another place by --out."
        ) from error
    print(f"{out} ({len(content) / 1e6:.1f} MB): its samples differ from the model's by at most {off:.1e}")
    print(usage(out, note))
    return out


def export_module_of(model: GenerativeModel, kind: Format) -> ExportableSampler | None:
    """The model's core in eval mode; for safetensors, which needs none, None where there is none.

    Raises:
        CheckpointError: the model has none, or cannot sample yet.
    """
    if supports(model, SupportsExport):
        return model.core().eval()
    if kind == "safetensors":
        return None
    raise CheckpointError(
        f"model {model.registered_name} has no core() that --format {kind} could hold (see zoo.nn.samplers.exportable): "
        f"use --format safetensors, or write one."
    )


def describe(model: GenerativeModel, core: ExportableSampler | None, source: Path) -> dict[str, Any]:
    """The note inside the file: plain values."""
    note: dict[str, Any] = {
        "model": model.registered_name,
        "spec": model.spec.to_dict(),
        "hyper_parameters": dict(model.hparams),
        "checkpoint": {"name": source.name, "sha256": sha256(source)},
        "versions": {name: version(name) for name in ("zoo", "torch")},
    }
    if core is not None:
        note |= {"inputs": [i.to_dict() for i in core.inputs], "begins": list(core.begins)}
    return note


# -- writing --------------------------------------------------------------------------------------------------------


def trace(core: ExportableSampler) -> torch.export.ExportedProgram:
    """The core as a graph, for batches of any size and tokens of any length up to the context.

    Without the lines of source that each node came from, which name folders of this machine.
    """
    with torch.no_grad():
        program = torch.export.export(core, core.draw(3), dynamic_shapes=dynamic_shapes(core))
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)
    return program


def dynamic_shapes(core: ExportableSampler) -> tuple[Any, ...]:
    """Which dimensions of the inputs are free."""
    batch = torch.export.Dim("batch", min=1)
    if core.begins:
        return (({0: batch, 1: torch.export.Dim("length", min=1, max=core.inputs[0].size[0])},),)
    return (tuple({0: batch} for _ in core.inputs),)


def to_pt2(core: ExportableSampler, note: dict[str, Any]) -> bytes:
    """A .pt2 archive."""
    buffer = io.BytesIO()
    torch.export.save(trace(core), buffer, extra_files={NOTE: json.dumps(note)})
    return buffer.getvalue()


def to_onnx(core: ExportableSampler, note: dict[str, Any]) -> bytes:
    """An ONNX model, weights included.

    Raises:
        CheckpointError: more weights than such a file can hold.
    """
    size = sum(tensor.nbytes for tensor in core.state_dict().values())
    if size > ONNX_LIMIT:
        raise CheckpointError(
            f"an ONNX file holds 2 GB, but the weights are {size / 1e9:.1f} GB: use --format torch_export."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter about its own internals
        program = torch.onnx.export(
            trace(core),
            dynamo=True,
            verbose=False,
            dynamic_shapes=dynamic_shapes(core),
            input_names=[i.name for i in core.inputs],
            output_names=["logits" if core.begins else "data"],
        )
    proto = program.model_proto  # type: ignore[union-attr]
    entry = proto.metadata_props.add()
    entry.key, entry.value = "zoo", json.dumps(note)
    return proto.SerializeToString()


# -- reading --------------------------------------------------------------------------------------------------------


def load_exported(path: str | Path) -> Program:
    """The sampler in a .pt2 or .onnx file; `zoo.load` reads .safetensors.

    Raises:
        CheckpointError: the file is neither, or was not written by the zoo.
    """
    path = Path(path)
    readers = {".pt2": _archive, ".onnx": _session}
    if path.suffix not in readers:
        raise CheckpointError(
            f"{path} is no .pt2 and no .onnx file: zoo.load reads runs, checkpoints and .safetensors."
        )
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}: `zoo export RUN` writes one.")
    return readers[path.suffix](path)


def _archive(path: Path) -> Program:
    extra = {NOTE: ""}
    program = torch.export.load(io.BytesIO(path.read_bytes()), extra_files=extra)
    return Program(program.module(), _said(path, extra[NOTE]))


def _session(path: Path) -> Program:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        given = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, given)[0])

    return Program(run, _said(path, session.get_modelmeta().custom_metadata_map.get("zoo", "")))


def _said(path: Path, note: str | bytes) -> dict[str, Any]:
    if not note:
        raise CheckpointError(f"{path} was not written by the zoo: it does not say what it holds.")
    return json.loads(note)


# -- checking -------------------------------------------------------------------------------------------------------


def max_abs_error(model: GenerativeModel, core: ExportableSampler | None, path: Path, kind: Format) -> float:
    """How far the samples of a written file are from the model's, for batches of 16 and of 1; 0 is bit for bit.

    Samples larger than one count by their size. Of a model that predicts tokens the probabilities are compared, on
    random tokens: as many as the context holds, or 32, and a single one.
    """
    if kind == "safetensors":
        again = restore_model(unpack(path))
        if core is None:
            with torch.no_grad():
                return max(
                    max_abs_difference(*(m.sample(n, generator=make_generator(n)) for m in (model, again)))
                    for n in (16, 1)
                )
        program: Callable[..., Tensor] = export_module_of(again, kind)  # type: ignore[assignment]
    else:
        program = _archive(path) if kind == "torch_export" else _session(path)
    assert core is not None
    found = []
    with torch.no_grad():
        for n in (16, 1):
            inputs = core.draw(n, make_generator(n))
            if core.begins:
                tokens = inputs[0][:, : 32 if n > 1 else 1]
                found.append(max_abs_difference(core(tokens).softmax(-1), program(tokens).softmax(-1)))
            else:
                found.append(max_abs_difference(model.sample(n, generator=make_generator(n)), program(*inputs)))
    return max(found)


def max_abs_difference(wanted: Tensor, got: Tensor) -> float:
    """The largest absolute difference, over the largest value where that exceeds one; infinite for other shapes."""
    if wanted.shape != got.shape:
        return math.inf
    return float((wanted - got).abs().max() / wanted.abs().max().clamp(min=1))


# -- how to use it --------------------------------------------------------------------------------------------------


def usage(path: Path, note: dict[str, Any]) -> str:
    """Lines of Python that draw samples from an exported file."""
    where = json.dumps(str(path))
    if path.suffix == ".safetensors":
        return f"import zoo\n\nmodel = zoo.load({where})\nsamples = model.sample(64)"
    torched = path.suffix == ".pt2"
    if torched:
        lines = ["import torch", "", f"program = torch.export.load({where}).module()"]
    else:
        lines = ["import numpy as np", "import onnxruntime", "", f"session = onnxruntime.InferenceSession({where})"]
        lines += ["random = np.random.default_rng(0)"]
    if note["begins"]:
        return "\n".join(lines + _writing(torched, note))
    laws = {
        "normal": ("torch.randn({})", "random.standard_normal({}, dtype=np.float32)"),
        "uniform": ("torch.rand({})", "random.random({}, dtype=np.float32)"),
        "class": ("torch.randint({high}, {})", "random.integers({high}, size={})"),
    }
    drawn = {}
    for i in note["inputs"]:
        shape = (64, *i["size"]) if i["size"] or (torched and i["law"] == "class") else 64
        drawn[i["name"]] = laws[i["law"]][not torched].format(shape, high=i["high"])
    if torched:
        lines += [*(f"{name} = {value}" for name, value in drawn.items()), f"samples = program({', '.join(drawn)})"]
    else:
        given = ", ".join(f'"{name}": {value}' for name, value in drawn.items())
        lines += [f"(samples,) = session.run(None, {{{given}}})"]
    return "\n".join(lines)


def _writing(torched: bool, note: dict[str, Any]) -> list[str]:
    """The loop that feeds a core with its own choices, for four rows."""
    spec, length = note["spec"], math.prod(note["spec"]["shape"])
    begins = (note["begins"] * 4)[:4]
    if torched:
        step = ["chosen = torch.multinomial(program(tokens)[:, -1].softmax(-1), 1)  # or .argmax(-1, keepdim=True)"]
        step += ["tokens = torch.cat([tokens, chosen], 1)"]
        lines = [f"tokens = torch.tensor({[[t] for t in begins]})  # what begins a row"]
        turn = "permute(0, 3, 1, 2)"
    else:
        step = ['logits = session.run(None, {"tokens": tokens})[0][:, -1]']
        step += ["chosen = (logits + random.gumbel(size=logits.shape)).argmax(1)  # or logits.argmax(1)"]
        step += ["tokens = np.concatenate([tokens, chosen[:, None]], 1)"]
        lines = [f"tokens = np.array({[[t] for t in begins]})  # what begins a row"]
        turn = "transpose(0, 3, 1, 2)"
    lines += [f"for _ in range({length}):", *(f"    {line}" for line in step)]
    if spec["kind"] == "image":
        channels, height, width = spec["shape"]
        shape = f"{height}, {width}, {channels}"
        return [*lines, f"samples = tokens[:, 1:].reshape(-1, {shape}).{turn} / {spec['levels'] - 1}"]
    return [*lines, "samples = tokens[:, 1:]"]
