"""How a model of text reads a piece of validation text: what each position looks at, and which tokens surprise it."""

import torch
from torch import Tensor

from zoo.callbacks import pictures
from zoo.data.base import DataModule
from zoo.data.loader import seeded
from zoo.models.base import Attends, Surprised

TOKENS = 64  # of the text that is shown
HEADS = 8  # of a layer at most, and layers at most


@torch.no_grad()
def reading(model: object, data: DataModule) -> dict[str, pictures.Picture | str]:
    """Attention maps, and nats for each token, of the first validation text, where the model can tell them."""
    shown: dict[str, pictures.Picture | str] = {}
    if data.spec.kind == "preferences":  # two texts, of which the difference counts
        return shown
    x, y = data.fetch(data.val, torch.arange(1), seeded(0), train=False)
    device = model.device  # type: ignore[attr-defined]
    batch = x[:, :TOKENS].to(device), y[:, :TOKENS].to(device)
    if isinstance(model, Attends) and (maps := list(model.attention(batch).values())):
        chosen = [maps[i] for i in torch.linspace(0, len(maps) - 1, min(len(maps), HEADS)).round().long()]
        shown["attention"] = attention_picture([m[0, :HEADS].float().cpu() for m in chosen])
    if isinstance(model, Surprised) and model.tokenizer is not None:
        nats, target = model.nats(batch)
        shown["token_loss"] = token_table(model.tokenizer, target[0].tolist(), nats[0].float().tolist())
    return shown


def attention_picture(layers: list[Tensor]) -> pictures.Picture:
    """A row for each layer, a cell for each head (H, T, S): bright where a position (down) looks at another (across).

    The brightness is the weight's square root, so that what is spread over many positions shows too.
    """
    return pictures.grid(torch.cat(layers)[:, None].sqrt(), columns=len(layers[0]), at_least=128)


def token_table(tokenizer: object, tokens: list[int], nats: list[float]) -> str:
    """Markdown: each scored token, what it cost, and a bar of one block for each nat."""
    rows = ["| token | nats | |", "|---|---|---|"]
    for token, cost in zip(tokens, nats, strict=True):
        if token >= 0:
            text = repr(tokenizer.decode([token]))[1:-1].replace("|", "\\|").replace("`", "'")  # type: ignore[attr-defined]
            rows.append(f"| `{text or '(end)'}` | {cost:.2f} | {'█' * round(cost)} |")
    return "\n".join(rows)
