"""Prompt cache: the same text, from fewer evaluated tokens."""

from typing import Any

import pytest
import torch

import zoo
from zoo.core.spaces import Tokens
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.byte import Byte
from zoo.nn.samplers.prompt_cache import PromptCache

TURNS = ["user: one", " and two", " or three or four", "!"]


def model(backbone: str = "transformer", context: int = 256, **settings: Any) -> Any:
    tokenizer = Byte()
    spec = zoo.DataSpec(Tokens(context, tokenizer.vocab_size, dumps(tokenizer)), name="letters")
    torch.manual_seed(0)
    sizes = {"d_model": 32, "n_layers": 2}
    made = zoo.create_model("language_model", data=spec, backbone={"name": backbone, **sizes, **settings})
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(std=0.4) if p.ndim == 2 else None
    return made.eval()


def chat(made: Any, turns: list[str] = TURNS) -> tuple[list[str], int]:
    """Answers, each to the whole history, and the number of tokens that the network read."""
    read: list[int] = []
    hook = made.net.register_forward_pre_hook(lambda net, given: read.append(given[0].shape[1]))
    history, answers = "", []
    for turn, text in enumerate(turns):
        history += text
        answers.append("".join(made.stream(history, max_new_tokens=8, seed=turn, temperature=1.0)))
        history += answers[-1]
    hook.remove()
    return answers, sum(read)


@pytest.mark.parametrize(
    "settings", [{"n_heads": 2}, {"n_heads": 2, "position_encoding": "learned"}, {"n_heads": 2, "window": 8}]
)
def test_the_text_is_the_same_and_less_is_read(settings: dict[str, Any]) -> None:
    plain, cached = model(**settings), model(**settings)
    assert cached.keep_prompts()
    wanted, read = chat(plain)
    found, less = chat(cached)
    assert found == wanted
    assert less < 0.6 * read, (less, read)


def test_other_texts_and_a_full_context_are_read_anew() -> None:
    turns = ["one two", " three"]
    cached, plain = model(context=24, n_heads=2), model(context=24, n_heads=2)
    cached.keep_prompts()
    for history in ("one two", "one twenty", "four", "x" * 40, "one two"):
        texts = ["".join(m.stream(history, max_new_tokens=5, seed=1)) for m in (plain, cached)]
        assert texts[0] == texts[1]
    assert chat(cached, turns)[0] == chat(plain, turns)[0]


def test_a_state_that_is_not_rewound_would_show() -> None:
    """Negative control."""
    cached, plain = model(n_heads=2), model(n_heads=2)
    cached.keep_prompts()
    cached.net.rewind = lambda state, n: None
    asked = ["one two", "one six seven eight"]
    texts = [["".join(m.stream(text, max_new_tokens=8, seed=1)) for text in asked] for m in (plain, cached)]
    assert texts[0][0] == texts[1][0]
    assert texts[0][1] != texts[1][1]


def test_an_interrupted_step_empties_it() -> None:
    made = model(n_heads=2)
    cache = PromptCache(made.net)
    with torch.no_grad():
        _, state = cache.prefill(torch.tensor([[1, 2, 3]]))

    def stop(*given: Any) -> None:
        raise KeyboardInterrupt

    hook = made.net.blocks[1].register_forward_pre_hook(stop)
    with torch.no_grad(), pytest.raises(KeyboardInterrupt):
        cache.step(torch.tensor([4]), state)
    hook.remove()
    assert cache.tokens == []
    with torch.no_grad():
        logits, _ = cache.prefill(torch.tensor([[1, 2, 3, 4, 5]]))
        assert torch.equal(logits, made.net.prefill(torch.tensor([[1, 2, 3, 4, 5]]))[0])


def test_networks_that_cannot_remove_tokens_read_everything() -> None:
    assert not model("lstm").keep_prompts()
    assert model(n_heads=2).keep_prompts()
