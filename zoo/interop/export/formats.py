"""PyTorch (.pt2) and ONNX files of a model's `ExportableSampler`: write and read. Neither needs the zoo to run."""

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.core.errors import CheckpointError
from zoo.nn.samplers.exportable import ExportableSampler

Format = Literal["safetensors", "torch_export", "onnx"]
SUFFIXES: dict[str, str] = {"safetensors": ".safetensors", "torch_export": ".pt2", "onnx": ".onnx"}
MAX_ONNX_BYTES = 2_000_000_000  # limit of protocol buffers
METADATA_FILE = "zoo.json"  # in a .pt2 archive; the metadata key of other formats is "zoo"


class Program:
    """An exported sampler, run by PyTorch or onnxruntime alone.

    Args:
        run: random inputs (B, ...) -> data (B, *shape), or tokens (B, T) -> logits (B, T, V).
        note: the file's metadata: "model", "spec", "inputs", "start_tokens", "checkpoint", "versions" ...
    """

    def __init__(self, run: Callable[..., Tensor], note: dict[str, Any]) -> None:
        self.run, self.note = run, note

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Run without gradients."""
        with torch.no_grad():
            return self.run(*inputs)


def trace(core: ExportableSampler) -> torch.export.ExportedProgram:
    """Trace to a graph for any batch size, and any number of tokens up to the context.

    Source lines of the nodes are removed, because they contain local paths.
    """
    with torch.no_grad():
        program = torch.export.export(core, core.draw(3), dynamic_shapes=dynamic_shapes(core))
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)
    return program


def dynamic_shapes(core: ExportableSampler) -> tuple[Any, ...]:
    """Dynamic dimensions of the inputs: the batch, and the length of tokens."""
    batch = torch.export.Dim("batch", min=1)
    if core.start_tokens:
        return (({0: batch, 1: torch.export.Dim("length", min=1, max=core.inputs[0].size[0])},),)
    return (tuple({0: batch} for _ in core.inputs),)


def to_pt2(core: ExportableSampler, note: dict[str, Any]) -> bytes:
    """Serialise to a .pt2 archive of `torch.export`."""
    buffer = io.BytesIO()
    torch.export.save(trace(core), buffer, extra_files={METADATA_FILE: json.dumps(note)})
    return buffer.getvalue()


def to_onnx(core: ExportableSampler, note: dict[str, Any]) -> bytes:
    """Serialise to an ONNX model, including weights.

    Raises:
        CheckpointError: the weights exceed the limit of the format.
    """
    size = sum(tensor.nbytes for tensor in core.state_dict().values())
    if size > MAX_ONNX_BYTES:
        raise CheckpointError(
            f"--format onnx: limited to 2 GB, the weights are {size / 1e9:.1f} GB. Use --format torch_export."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # internal warnings of torch's exporter
        program = torch.onnx.export(
            trace(core),
            dynamo=True,
            verbose=False,
            dynamic_shapes=dynamic_shapes(core),
            input_names=[i.name for i in core.inputs],
            output_names=["logits" if core.start_tokens else "data"],
        )
    proto = program.model_proto  # type: ignore[union-attr]
    entry = proto.metadata_props.add()
    entry.key, entry.value = "zoo", json.dumps(note)
    return proto.SerializeToString()


def load_exported(path: str | Path) -> Program:
    """Load the sampler of a .pt2 or .onnx file; `zoo.load` reads .safetensors.

    Raises:
        CheckpointError: not such a file, or not written by the zoo.
    """
    path = Path(path)
    readers = {".pt2": load_pt2, ".onnx": load_onnx}
    if path.suffix not in readers:
        raise CheckpointError(f"{path}: not a .pt2 or .onnx file. Use zoo.load for runs, checkpoints and .safetensors.")
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}. Write one by `zoo export RUN`.")
    return readers[path.suffix](path)


def load_pt2(path: Path) -> Program:
    """Load a .pt2 archive."""
    extra = {METADATA_FILE: ""}
    program = torch.export.load(io.BytesIO(path.read_bytes()), extra_files=extra)
    return Program(program.module(), _parse_note(path, extra[METADATA_FILE]))


def load_onnx(path: Path) -> Program:
    """Load an ONNX model with onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        arrays = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, arrays)[0])

    return Program(run, _parse_note(path, session.get_modelmeta().custom_metadata_map.get("zoo", "")))


def _parse_note(path: Path, note: str | bytes) -> dict[str, Any]:
    if not note:
        raise CheckpointError(f"{path}: not written by the zoo; its metadata is missing. Write one by `zoo export`.")
    return json.loads(note)
