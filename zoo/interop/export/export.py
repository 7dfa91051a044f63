"""Export a trained model to safetensors, torch.export or ONNX, and verify the file before it is kept.

PyTorch and ONNX files contain the model's `ExportableSampler` and need neither the zoo nor Lightning to run.
`.github/docs/exporting.md` shows how to sample from each format.
"""

import importlib.util
from importlib.metadata import version
from pathlib import Path
from typing import Any

from zoo.core.errors import CheckpointError
from zoo.hub.bundle import describe as facts_of
from zoo.hub.card import card
from zoo.hub.pretrained import default_output, resolve
from zoo.interop.export.formats import SUFFIXES, Format, to_onnx, to_pt2
from zoo.interop.export.verify import max_abs_error
from zoo.io.atomic import atomic_replace, sha256, write_text
from zoo.io.provenance import DISTRIBUTION
from zoo.io.weights_file import pack
from zoo.models.abilities import SupportsExport
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.nn.samplers.exportable import ExportableSampler
from zoo.runs.checkpoint import find_checkpoint, read_checkpoint, restore_model

USES: dict[Format, str] = {
    "safetensors": 'In Python, `zoo.load("{name}").sample(64)` draws samples.',
    "torch_export": "PyTorch alone runs `{name}`: the zoo's page on exports has the code.",
    "onnx": "onnxruntime alone runs `{name}`: the zoo's page on exports has the code.",
}
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-5  # maximum error of samples and probabilities


def export(run: str | Path, kind: Format = "safetensors", out: Path | None = None) -> Path:
    """Write a run's best weights (or a checkpoint) in another format.

    The file is kept only if it reproduces the model's samples. A model card is written beside it.

    Args:
        run: run folder or checkpoint file.
        kind: the format.
        out: the file; None is `export/model` in the run's folder, with the format's suffix.

    Raises:
        CheckpointError: no such run, a model that is not exportable, missing packages, an unwritable place, or
            samples that differ. An existing file stays unchanged.
    """
    source = find_checkpoint(resolve(run))
    if kind == "onnx" and (missing := [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]):
        raise CheckpointError(f"--format onnx needs {' and '.join(missing)}: pip install {' '.join(ONNX_PACKAGES)}.")
    out = out or default_output(run, "export", f"model{SUFFIXES[kind]}")
    if out.suffix != SUFFIXES[kind]:
        raise CheckpointError(f"--out {out}: must end in {SUFFIXES[kind]} for --format {kind}. Rename it.")
    model = restore_model(read_checkpoint(source))
    core = exportable_sampler(model, kind)
    note = describe(model, core, source)
    if core is None or kind == "safetensors":
        content = pack(model.state_dict(), note)
    else:
        content = to_pt2(core, note) if kind == "torch_export" else to_onnx(core, note)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_replace(out) as draft:
            draft.write_bytes(content)
            error = max_abs_error(model, core, draft, kind)
            if not error <= TOLERANCE:
                raise CheckpointError(
                    f"{source}: samples of the {kind} file differ from the model's by {error:.1e}, more than "
                    f"{TOLERANCE:.0e}. The file was not kept. Please report it, with the run's config.yaml."
                )
    except OSError as failure:
        reason = (failure.strerror or str(failure)).lower()
        raise CheckpointError(
            f"{out} cannot be written ({reason}). Make room, or choose another place by --out."
        ) from None
    use = USES[kind].format(name=out.name)
    write_text(out.with_suffix(".md"), card(facts_of(model, source, out.stem), use=use))
    print(f"{out} ({len(content) / 1e6:.1f} MB): its samples differ from the model's by at most {error:.1e}")
    print("How to sample from it: .github/docs/exporting.md")
    return out


def exportable_sampler(model: Model, kind: Format) -> ExportableSampler | None:
    """The model's sampler in eval mode; None for safetensors of a model without one.

    Raises:
        CheckpointError: the model does not have one, or cannot sample yet.
    """
    if supports(model, SupportsExport):
        return model.export_module().eval()
    if kind == "safetensors":
        return None
    raise CheckpointError(
        f"model {model.registered_name} has no core() for --format {kind} (see zoo.nn.samplers.exportable). "
        f"Write one, or use --format safetensors."
    )


def describe(model: Model, core: ExportableSampler | None, source: Path) -> dict[str, Any]:
    """Metadata of the file, as plain values."""
    note: dict[str, Any] = {
        **model.note(),
        "hyper_parameters": dict(model.hparams),
        "checkpoint": {"name": source.name, "sha256": sha256(source)},
        "versions": {"zoo": version(DISTRIBUTION), "torch": version("torch")},
    }
    if core is not None:
        note |= {"inputs": [i.to_dict() for i in core.inputs], "start_tokens": list(core.start_tokens)}
    return note
