"""Keys of config.json about windows, rotary positions and soft caps, to settings of our transformer and back."""

from collections.abc import Callable, Mapping
from typing import Any

from zoo.core.errors import CheckpointError
from zoo.interop.huggingface.config import export_rope, import_rope, refuse

ConfigReader = Callable[[Mapping[str, Any]], dict[str, Any]]
WINDOWED, EVERYWHERE = "sliding_attention", "full_attention"


def n_layers(config: Mapping[str, Any]) -> int:
    """Number of layers.

    Raises:
        CheckpointError: it is missing.
    """
    if type(n := config.get("num_hidden_layers")) is not int:
        raise CheckpointError("config.json is damaged: num_hidden_layers is missing.")
    return n


def import_window(config: Mapping[str, Any], default: int | None, kinds: list[str]) -> dict[str, Any]:
    """Window, and which layers do not have it.

    Args:
        config: config.json.
        default: window if the key is missing.
        kinds: of each layer if `layer_types` is missing.

    Raises:
        CheckpointError: layers in an order that our model does not have.
    """
    size, kinds = config.get("sliding_window", default), list(config.get("layer_types") or kinds)
    layers = n_layers(config)
    if set(kinds) - {WINDOWED, EVERYWHERE} or len(kinds) != layers:
        refuse("layer_types", kinds, "language_model", f"Supported: {WINDOWED} or {EVERYWHERE} for each layer.")
    if not size or WINDOWED not in kinds:
        return {"backbone.window": 0, "backbone.global_every": 0}
    fitting = [every for every in (0, *range(2, layers + 1)) if kinds == layer_types(layers, every)]
    if not fitting:
        refuse("layer_types", kinds, "language_model", f"Supported: {EVERYWHERE} for every n-th layer.")
    return {"backbone.window": size, "backbone.global_every": fitting[0]}


def layer_types(layers: int, every: int) -> list[str]:
    """Kinds of layers of which every `every`-th attends to all positions; 0 is none."""
    return [EVERYWHERE if every and (i + 1) % every == 0 else WINDOWED for i in range(layers)]


def export_window(settings: Mapping[str, Any], optional: bool = True) -> dict[str, Any]:
    """Inverse of `import_window` for architectures whose layers are alike, or have `layer_types`.

    Args:
        settings: ours.
        optional: a window may be absent.
    """
    window, every = settings["backbone.window"], settings["backbone.global_every"]
    if not window and not optional:
        raise CheckpointError("backbone.window=0: this architecture has a window. Please report it.")
    return {"sliding_window": window or None, "layer_types": layer_types(settings["backbone.n_layers"], every)}


def import_mistral(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary positions, and the same window in all layers; 4096 tokens where the key is missing."""
    return import_rope(config) | import_window(config, 4096, [WINDOWED] * n_layers(config))


def import_mixtral(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary positions with base 1e6, and a window where the key is given."""
    window = import_window(config, None, [WINDOWED] * n_layers(config))
    return import_rope(config, theta=1e6) | window


def export_mistral(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `import_mistral` and `import_mixtral`."""
    return export_rope(settings) | {"sliding_window": settings["backbone.window"] or None}


def import_qwen(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary positions, and windows in the last layers, which are off by default."""
    first, layers = config.get("max_window_layers", 28), n_layers(config)
    kinds = [WINDOWED if i >= first else EVERYWHERE for i in range(layers)]
    if not config.get("use_sliding_window", False):
        config, kinds = {**config, "sliding_window": None, "layer_types": None}, [EVERYWHERE] * layers
    return import_rope(config) | import_window(config, 4096, kinds)


def export_qwen(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `import_qwen`."""
    layers = settings["backbone.n_layers"]
    if not settings["backbone.window"]:
        kinds = [EVERYWHERE] * layers
        return export_rope(settings) | {
            "use_sliding_window": False,
            "sliding_window": None,
            "max_window_layers": layers,
            "layer_types": kinds,
        }
    return export_rope(settings) | {"use_sliding_window": True, "max_window_layers": 0} | export_window(settings)


def import_phi3(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary positions of a part of each head, and a window where the key is given."""
    window = import_window(config, None, [WINDOWED] * n_layers(config))
    return import_rope(config, partial=True) | window


def export_phi3(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `import_phi3`."""
    rope = export_rope(settings, partial=True)
    return rope | {
        "sliding_window": settings["backbone.window"] or None,
        "original_max_position_embeddings": rope["rope_parameters"].get(
            "original_max_position_embeddings", settings["context"]
        ),
        "pad_token_id": None,  # the default of `transformers` is outside of small vocabularies
    }


def import_gemma2(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary positions, alternating windows, soft caps and the scale of scores."""
    layers = n_layers(config)
    caps = _import_caps(config, attention=50.0, logits=30.0)
    return import_rope(config) | import_window(config, 4096, layer_types(layers, 2)) | caps


def export_gemma2(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `import_gemma2`."""
    return export_rope(settings) | export_window(settings, optional=False) | _export_caps(settings)


def import_gemma3(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary positions with one base in layers with a window and another in every sixth layer; soft caps; scale.

    Raises:
        CheckpointError: scaled positions in layers with a window.
    """
    every = config.get("sliding_window_pattern", config.get("_sliding_window_pattern")) or 6
    given = dict(config.get("rope_parameters") or {})
    whole, near = dict(given.get(EVERYWHERE) or {}), dict(given.get(WINDOWED) or {})
    whole = {"rope_theta": config.get("rope_theta", 1e6), **(config.get("rope_scaling") or {}), **whole}
    near = {"rope_theta": config.get("rope_local_base_freq", 1e4), **near}
    if near.get("rope_type", "default") != "default":
        refuse(f"rope_parameters.{WINDOWED}", near, "language_model", "Supported: rope_type='default'.")
    positions = {"max_position_embeddings": config.get("max_position_embeddings", 131072), "rope_parameters": whole}
    window = import_window(config, 4096, layer_types(n_layers(config), every))
    caps = _import_caps(config, attention=None, logits=None)
    return import_rope(positions) | {"backbone.window_theta": float(near["rope_theta"])} | window | caps


def export_gemma3(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `import_gemma3`."""
    near = settings["backbone.window_theta"] or settings["backbone.rope_theta"]
    whole = export_rope(settings)["rope_parameters"]
    rope = {EVERYWHERE: whole, WINDOWED: {"rope_type": "default", "rope_theta": near}}
    return {"rope_parameters": rope} | export_window(settings, optional=False) | _export_caps(settings)


def _import_caps(config: Mapping[str, Any], attention: float | None, logits: float | None) -> dict[str, Any]:
    return {
        "backbone.softcap": float(config.get("attn_logit_softcapping", attention) or 0.0),
        "backbone.logit_softcap": float(config.get("final_logit_softcapping", logits) or 0.0),
        "backbone.attention_scale": float(config.get("query_pre_attn_scalar", 256)) ** -0.5,
    }


def _export_caps(settings: Mapping[str, Any]) -> dict[str, Any]:
    scale, head = settings["backbone.attention_scale"], settings["backbone.d_head"]
    width = head or settings["backbone.d_model"] // settings["backbone.n_heads"]
    scalar = round(scale**-2) if scale else width
    if scale and abs(scalar**-0.5 - scale) > 1e-12:
        raise CheckpointError(f"backbone.attention_scale={scale}: not n^-1/2 of an integer. Gemma has no other.")
    return {
        "attn_logit_softcapping": settings["backbone.softcap"] or None,
        "final_logit_softcapping": settings["backbone.logit_softcap"] or None,
        "query_pre_attn_scalar": scalar,
    }
