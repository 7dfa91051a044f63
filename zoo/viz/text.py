"""How a model of text reads a piece of validation text: what each position looks at, and which tokens surprise it."""

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
from zoo.models.abilities import SupportsAttentionMaps, SupportsTextGeneration, SupportsTokenLoss, supports
from zoo.models.base import Model
from zoo.viz import images
from zoo.viz.render import SEED, Shown, View

WRITTEN = 200  # tokens of a completion
RULE = f"\n{'-' * 78}\n"
TOKENS = 64  # of the text that is shown
HEADS = 8  # of a layer at most, and layers at most
CELL, LETTER = 16, 7  # pixels of an alignment's cell, and of a letter


@register("view", "text")
class TextView(View):
    """Completions of held-out prompts, or texts from the beginning."""

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that continue text."""
        return supports(model, SupportsTextGeneration) and not isinstance(data.spec.x, Pair)

    def show(self, model: Any, data: DataModule) -> dict[str, Shown]:
        """Six texts."""
        pairs = getattr(data, "pairs", None)  # prompts with answers
        prompts = [prompt for prompt, _ in pairs("val")[:6]] if pairs else [""] * 6
        done = model.generate(prompts, max_new_tokens=WRITTEN, seed=SEED)
        texts = [prompt + text.text for prompt, text in zip(prompts, done, strict=True)]
        return {"samples": RULE.join(texts)}


@register("view", "translation")
class TranslationView(View):
    """Sources, their targets, and the output of the model, greedily decoded."""

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that write targets."""
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
        """Models of one text a sample, with attention or token losses."""
        able = supports(model, SupportsAttentionMaps) or supports(model, SupportsTokenLoss)
        return able and data.spec.text and not isinstance(data.spec.x, Preference)

    def show(self, model: Any, data: DataModule) -> dict[str, Shown]:
        """Pictures of attention, a table of losses."""
        shown: dict[str, Shown] = {}
        x, y = data.fetch(data.val, torch.arange(1), make_generator(0), train=False)
        batch = Batch(x[:, :TOKENS], y[:, :TOKENS]).to(model.device)
        tokenizer = getattr(model, "tokenizer", None)
        maps = list(model.attention(batch).values()) if supports(model, SupportsAttentionMaps) else []
        if maps:
            if isinstance(model.spec.x, Pair) and tokenizer is not None:
                texts = [[plain(tokenizer.decode([t])) or "(end)" for t in side[0].tolist()] for side in batch]
                shown["alignment"] = alignment(torch.stack([m[0].float().cpu().mean(0) for m in maps]).mean(0), *texts)
            chosen = [maps[i] for i in torch.linspace(0, len(maps) - 1, min(len(maps), HEADS)).round().long()]
            shown["attention"] = attention_picture([m[0, :HEADS].float().cpu() for m in chosen])
        if supports(model, SupportsTokenLoss) and tokenizer is not None:
            nats, target = model.token_nll(batch)
            shown["token_loss"] = token_table(tokenizer, target[0].tolist(), nats[0].float().tolist())
        return shown


def attention_picture(layers: list[Tensor]) -> images.Picture:
    """A row for each layer, a cell for each head (H, T, S): bright where a position (down) looks at another (across).

    The brightness is the weight's square root, so that what is spread over many positions shows too.
    """
    return images.grid(torch.cat(layers)[:, None].sqrt(), columns=len(layers[0]), at_least=128)


def alignment(weights: Tensor, source: list[str], target: list[str]) -> images.Picture:
    """How much each target token (T, down) looks at each source token (S, across), dark to bright, with their texts."""
    wide = max(len(text) for text in target) * LETTER + 2 * images.GAP
    high = max(len(text) for text in source) * LETTER + 2 * images.GAP
    picture = Image.new("RGB", (wide + CELL * len(source), high + CELL * len(target)), (images.BACKGROUND,) * 3)
    cells = images.coloured(weights.sqrt()).repeat(CELL, axis=0).repeat(CELL, axis=1)
    picture.paste(Image.fromarray(cells), (wide, high))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=11)
    for row, text in enumerate(target):
        draw.text((wide - images.GAP, high + CELL * row + CELL // 2), text, "white", font, anchor="rm")
    across = Image.new("RGB", (high, CELL * len(source)), (images.BACKGROUND,) * 3)  # turned by a quarter below
    draw = ImageDraw.Draw(across)
    for column, text in enumerate(source):
        draw.text((images.GAP, CELL * column + CELL // 2), text, "white", font, anchor="lm")
    picture.paste(across.transpose(Image.Transpose.ROTATE_90), (wide, 0))
    return np.asarray(picture)


def plain(text: str) -> str:
    """Text in the few letters that Pillow's own font has: accents are left out, and other characters become "?"."""
    letters = [c for c in unicodedata.normalize("NFKD", printable(text)) if not unicodedata.combining(c)]
    return "".join(letters).encode("ascii", "replace").decode()


def token_table(tokenizer: Any, tokens: list[int], nats: list[float]) -> str:
    """Markdown: each scored token, what it cost, and a bar of one block for each nat."""
    rows = ["| token | nats | |", "|---|---|---|"]
    for token, cost in zip(tokens, nats, strict=True):
        if token >= 0:
            text = tokenizer.decode([token]) if token < tokenizer.vocab_size else "(sentinel)"
            text = repr(text)[1:-1].replace("|", "\\|").replace("`", "'")
            rows.append(f"| `{text or '(end)'}` | {cost:.2f} | {'█' * round(cost)} |")
    return "\n".join(rows)
