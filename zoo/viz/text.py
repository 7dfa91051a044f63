"""Views of models of text: completions, translations, attention maps, token losses."""

import unicodedata
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from zoo.core.errors import printable
from zoo.core.registry import register
from zoo.core.spaces import Pair, Preference
from zoo.data.base import DataModule
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.models.abilities import SupportsAttentionMaps, SupportsTextGeneration, SupportsTokenLoss
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.viz import images
from zoo.viz.render import SEED, Shown, View, has_renderer

MAX_NEW_TOKENS = 200  # per completion
RULE = f"\n{'-' * 78}\n"
TOKENS = 64  # of the text
HEADS = 8  # maximum heads per layer, and maximum layers
CELL, LETTER = 16, 7  # pixels of a cell, and of a letter


@register("view", "text")
class TextView(View):
    """Completions of held-out prompts, or unconditional texts."""

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that continue text, except translators and notations that have a renderer."""
        plain = not isinstance(data.spec.x, Pair) and not has_renderer(data.spec.x)
        return supports(model, SupportsTextGeneration) and plain

    def show(self, model: Any, data: DataModule) -> dict[str, Shown]:
        """Six texts."""
        pairs = getattr(data, "pairs", None)  # prompts with answers
        prompts = [prompt for prompt, _ in pairs("val")[:6]] if pairs else [""] * 6
        done = model.generate(prompts, max_new_tokens=MAX_NEW_TOKENS, seed=SEED)
        texts = [prompt + text.text for prompt, text in zip(prompts, done, strict=True)]
        return {"samples": RULE.join(texts)}


@register("view", "translation")
class TranslationView(View):
    """Sources, their targets, and the output of the model, greedily decoded."""

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that translate."""
        return supports(model, SupportsTextGeneration) and isinstance(data.spec.x, Pair)

    def show(self, model: Any, data: Any) -> dict[str, Shown]:
        """Eight pairs."""
        pairs = data.pairs("val")[:8]
        done = model.generate([source for source, _ in pairs], temperature=0, seed=SEED)
        rows = zip(pairs, done, strict=True)
        texts = [f"source  {source}\ntarget  {target}\nmodel   {output.text}" for (source, target), output in rows]
        return {"samples": RULE.join(texts)}


@register("view", "reading")
class ReadingView(View):
    """Attention maps and the loss of each token, for the first validation text."""

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models of text with attention maps or token losses, except of preferences."""
        able = supports(model, SupportsAttentionMaps) or supports(model, SupportsTokenLoss)
        return able and data.spec.text and not isinstance(data.spec.x, Preference)

    def show(self, model: Any, data: DataModule) -> dict[str, Shown]:
        """Pictures of attention, and a table of losses."""
        shown: dict[str, Shown] = {}
        x, y = data.fetch(data.val, torch.arange(1), make_generator(0), train=False)
        batch = Batch(x[:, :TOKENS], y[:, :TOKENS]).to(model.device)
        tokenizer = getattr(model, "tokenizer", None)
        maps = list(model.attention(batch).values()) if supports(model, SupportsAttentionMaps) else []
        if maps:
            if isinstance(model.spec.x, Pair) and tokenizer is not None:
                texts = [[to_ascii(tokenizer.decode([t])) or "(end)" for t in side[0].tolist()] for side in batch]
                shown["alignment"] = alignment_picture(
                    torch.stack([m[0].float().cpu().mean(0) for m in maps]).mean(0), *texts
                )
            places = torch.linspace(0, len(maps) - 1, min(len(maps), HEADS)).round().long().tolist()
            names = [f"layer {i + 1}" for i in places]
            shown["attention"] = attention_picture([maps[i][0, :HEADS].float().cpu() for i in places], names)
        if supports(model, SupportsTokenLoss) and tokenizer is not None:
            nats, target = model.token_nll(batch)
            shown["token_loss"] = token_table(tokenizer, target[0].tolist(), nats[0].float().tolist())
        return shown


def attention_picture(layers: list[Tensor], names: list[str]) -> images.Picture:
    """Draw attention weights (H, T, S) of layers in rows, with their names, heads in columns; T down, S across.

    Brightness is the square root of the weight, so that diffuse attention is visible.
    """
    heads = len(layers[0])
    picture = images.grid(torch.cat(layers)[:, None].sqrt(), columns=heads, at_least=128)
    return images.with_names(picture, (len(layers), heads), names, [f"head {i + 1}" for i in range(heads)])


def alignment_picture(weights: Tensor, source: list[str], target: list[str]) -> images.Picture:
    """Draw cross-attention weights (T, S) with the texts of target tokens (down) and source tokens (across)."""
    wide = max(len(text) for text in target) * LETTER + 2 * images.GAP
    high = max(len(text) for text in source) * LETTER + 2 * images.GAP
    picture = Image.new("RGB", (wide + CELL * len(source), high + CELL * len(target)), (images.BACKGROUND,) * 3)
    cells = images.coloured(weights.sqrt()).repeat(CELL, axis=0).repeat(CELL, axis=1)
    picture.paste(Image.fromarray(cells), (wide, high))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=11)
    for row, text in enumerate(target):
        draw.text((wide - images.GAP, high + CELL * row + CELL // 2), text, "white", font, anchor="rm")
    across = Image.new("RGB", (high, CELL * len(source)), (images.BACKGROUND,) * 3)  # rotated below
    draw = ImageDraw.Draw(across)
    for column, text in enumerate(source):
        draw.text((images.GAP, CELL * column + CELL // 2), text, "white", font, anchor="lm")
    picture.paste(across.transpose(Image.Transpose.ROTATE_90), (wide, 0))
    return np.asarray(picture)


def to_ascii(text: str) -> str:
    """Convert text to ASCII for Pillow's default font: without accents, other characters as "?"."""
    letters = [c for c in unicodedata.normalize("NFKD", printable(text)) if not unicodedata.combining(c)]
    return "".join(letters).encode("ascii", "replace").decode()


def token_table(tokenizer: Any, tokens: list[int], nats: list[float]) -> str:
    """Format scored tokens as a Markdown table: token, nats, and a bar of one block per nat."""
    rows = ["| token | nats | |", "|---|---|---|"]
    for token, cost in zip(tokens, nats, strict=True):
        if token >= 0:
            text = tokenizer.decode([token]) if token < tokenizer.vocab_size else "(sentinel)"
            text = repr(text)[1:-1].replace("|", "\\|").replace("`", "'")
            rows.append(f"| `{text or '(end)'}` | {cost:.2f} | {'█' * round(cost)} |")
    return "\n".join(rows)
