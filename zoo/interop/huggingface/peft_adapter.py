"""LoRA adapters in the format of the library `peft`: `adapter_config.json` and `adapter_model.safetensors`."""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.core.errors import CheckpointError
from zoo.hub.pretrained import default_output, resolve
from zoo.interop.huggingface import load as hf_load
from zoo.interop.huggingface.json_file import read_json
from zoo.interop.huggingface.mapping import Weights
from zoo.interop.huggingface.save import TOLERANCE, difference, expressible, save
from zoo.io.atomic import atomic_replace, write_text
from zoo.models.abilities import SupportsMerging
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.nn.blocks.lora import LoRALinear, plain_state, remove_adapters
from zoo.runs.folder import RunFolder

CONFIG, WEIGHTS, BASE = "adapter_config.json", "adapter_model.safetensors", "base"
PREFIX = "base_model.model."
PARTS = {"lora_A.weight": "down", "lora_B.weight": "up", "lora_magnitude_vector": "magnitude"}

# Keys of adapter_config.json that do not change what a trained adapter computes. Others must be off.
INERT = {
    "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "r", "lora_alpha", "use_rslora", "use_dora", "target_modules", "exclude_modules", "lora_dropout", "fan_in_fan_out",
    "layers_to_transform", "layers_pattern", "megatron_core", "qalora_group_size", "runtime_config", "eva_config",
}  # fmt: skip


@dataclass(frozen=True)
class PeftAdapter:
    """An adapter folder.

    Args:
        folder: where it is.
        config: its adapter_config.json.
        factors: name of a layer -> "down" (rank, in), "up" (out, rank) and, for DoRA, "magnitude" (out,).
    """

    folder: Path
    config: Mapping[str, Any]
    factors: dict[str, dict[str, Tensor]]

    def merge(self, weights: Weights, prefix: str, transposed: Collection[str]) -> Weights:
        """Add the adapter to the weights of its base model.

        Args:
            weights: of the base model, by names without the prefix.
            prefix: of names in the Hugging Face format.
            transposed: names of weights that are stored as (in, out).

        Raises:
            CheckpointError: a layer that the base model does not have, or has with another shape.
        """
        merged = dict(weights)
        for layer, parts in self.factors.items():
            name = f"{layer.removeprefix(prefix)}.weight"
            if name not in weights:
                raise CheckpointError(f"{self.folder}: its base model does not have {layer}. Use its own base model.")
            old = weights[name].T if name in transposed else weights[name]  # (out, in)
            fits = old.shape == (len(parts["up"]), parts["down"].shape[1])
            if not fits or ("magnitude" in parts and parts["magnitude"].shape != old.shape[:1]):
                raise CheckpointError(
                    f"{self.folder}: {layer} does not fit {tuple(old.shape)}. Use its own base model."
                )
            rank = len(parts["down"])
            scale = self.config["lora_alpha"] / (math.sqrt(rank) if self.config.get("use_rslora") else rank)
            new = old + scale * parts["up"] @ parts["down"]
            if "magnitude" in parts:
                norm = new.norm(dim=1).clamp(min=torch.finfo(new.dtype).tiny)
                new = (parts["magnitude"] / norm)[:, None] * new
            merged[name] = new.T if name in transposed else new
        return merged


def read(folder: Path) -> PeftAdapter:
    """Read an adapter folder.

    Raises:
        CheckpointError: damaged files, or a kind of adapter other than LoRA, rsLoRA and DoRA of linear layers.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = read_json(folder / CONFIG)
    if config.get("peft_type") != "LORA":
        raise CheckpointError(f"{folder}: peft_type={config.get('peft_type')!r} is not supported. Supported: LORA.")
    off = {"bias": "none", "init_lora_weights": True}
    other = {k: v for k, v in config.items() if k not in INERT and v and v != off.get(k)}
    if other.get("init_lora_weights") == "gaussian":
        del other["init_lora_weights"]
    if other:
        raise CheckpointError(
            f"{folder}: {', '.join(f'{k}={v!r}' for k, v in other.items())} is not supported. Merge by "
            f"PeftModel.merge_and_unload() and save_pretrained(FOLDER), and load that folder."
        )
    if not isinstance(config.get("lora_alpha"), (int, float)):
        raise CheckpointError(f"{folder / CONFIG}: lora_alpha is missing. Save the adapter again.")
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} cannot be read ({error}). Save the adapter again.") from None
    factors: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        ending = next((end for end in PARTS if name.endswith(f".{end}")), None)
        if ending is None:
            raise CheckpointError(f"{folder}: weights {name} are not supported. Supported: {', '.join(PARTS)}.")
        factors.setdefault(name.removeprefix(PREFIX).removesuffix(f".{ending}"), {})[PARTS[ending]] = tensor.float()
    wanted = {"down", "up"} | ({"magnitude"} if config.get("use_dora") else set())
    for layer, parts in factors.items():
        if parts.keys() != wanted or parts["down"].ndim != 2 or len(parts["down"]) != parts["up"].shape[-1]:
            raise CheckpointError(f"{folder}: weights of {layer} are missing or do not match. Save the adapter again.")
    return PeftAdapter(folder, config, factors)


def load(folder: Path) -> Model:
    """Load the base model of an adapter folder, with the adapter merged into its weights.

    The base model is `base_model_name_or_path`: a folder in the Hugging Face format, which may be relative to the
    adapter. Nothing is downloaded.

    Raises:
        CheckpointError: no such base model, or an adapter that does not fit it.
    """
    adapter = read(folder)
    name = str(adapter.config.get("base_model_name_or_path") or "")
    places = [place for place in (folder / name, Path(name)) if name and hf_load.is_folder(place)]
    if not places:
        raise CheckpointError(
            f"{folder}: base_model_name_or_path={name!r} is not a folder with {hf_load.CONFIG}. "
            f"Put the base model there, or correct {CONFIG}."
        )
    return hf_load.load(places[0], adapter)


def export(run: str | Path, out: Path | None = None) -> Path:
    """Export the adapters of a run for `peft`, and verify them.

    The base model is `init_from` of the run if it is a folder in the Hugging Face format. Otherwise it is saved beside
    the adapters.

    Args:
        run: a run with `model.lora_rank`.
        out: the folder; None is `export/peft` in the run folder.

    Raises:
        CheckpointError: no adapters, or layers that the Hugging Face format keeps as one matrix.
    """
    from safetensors.torch import save as as_bytes

    from zoo.interop.loading import load as load_run  # imports this module

    model: Any = load_run(str(run))
    if not supports(model, SupportsMerging) or not model.hparams["lora_rank"]:
        raise CheckpointError(f"{run}: it does not have adapters. Use --format huggingface.")
    tensors, config = _described(model)
    where = out or default_output(run, "export", "peft")
    if where.exists() and (not where.is_dir() or any(where.iterdir())):
        raise CheckpointError(f"{where} is not empty. Remove it, or use another --out.")
    place = resolve(run)
    origin = str(RunFolder(place if place.is_dir() else place.parent).config().get("init_from") or "")
    plain: Any = remove_adapters(model.policy)
    where.mkdir(parents=True, exist_ok=True)
    if hf_load.is_folder(origin) and not model.hparams["lora_4bit"]:  # the adapter corrects the rounded matrices
        config["base_model_name_or_path"] = str(Path(origin).resolve())
    else:
        save(plain, where / BASE)
        config["base_model_name_or_path"] = BASE
    write_text(where / CONFIG, json.dumps(config, indent=2) + "\n")
    with atomic_replace(where / WEIGHTS) as draft:
        draft.write_bytes(as_bytes(tensors, metadata={"format": "pt"}))
    off = difference(load_run(str(run)).merged(), load(where))
    if not off <= TOLERANCE:
        raise CheckpointError(f"{where}: logits of the export differ by {off:.1e}. Do not use it. Please report it.")
    print(f"{where}: its logits differ from the model's by at most {off:.1e}")
    print(f"\nimport peft\n\nmodel = peft.PeftModel.from_pretrained(BASE_MODEL, {json.dumps(str(where))})")
    return where


@torch.no_grad()
def _described(model: Any) -> tuple[Weights, dict[str, Any]]:
    """Tensors and adapter_config.json of a model with adapters."""
    architecture = expressible(model.policy)
    layers = {n: m for n, m in model.policy.named_modules() if isinstance(m, LoRALinear)}
    names: dict[str, str] = {}
    fan_in_fan_out = False
    for ours, theirs, transposed in hf_load.rows_of(architecture, plain_state(model.policy)):
        adapted = [name for name in ours if name.removesuffix(".weight") in layers and name.endswith(".weight")]
        if adapted and len(ours) > 1:
            inside = ", ".join(name.removesuffix(".weight").rpartition(".")[2] for name in ours)
            raise CheckpointError(
                f"{architecture.kind} keeps {inside} as one matrix, so their adapters have no counterpart in peft. "
                f"Use --format huggingface, or train with model.lora_targets=[out,up]."
            )
        if adapted:
            names[ours[0].removesuffix(".weight")] = f"{architecture.prefix}{theirs}".removesuffix(".weight")
            fan_in_fan_out |= transposed
    if missing := layers.keys() - names.keys():
        raise CheckpointError(f"{architecture.kind} does not have {', '.join(sorted(missing))}. Please report it.")
    tensors = Weights()
    for ours_name, layer in layers.items():
        for ending, part in PARTS.items():
            if (tensor := getattr(layer, part)) is not None:
                tensors[f"{PREFIX}{names[ours_name]}.{ending}"] = tensor.detach().contiguous().clone()
    settings = model.hparams
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none", "inference_mode": True,
        "r": settings["lora_rank"], "lora_alpha": settings["lora_alpha"], "lora_dropout": 0.0,
        "use_rslora": settings["lora_rslora"], "use_dora": settings["lora_dora"], "fan_in_fan_out": fan_in_fan_out,
        "target_modules": sorted(names.values()),
    }  # fmt: skip
    return tensors, config
