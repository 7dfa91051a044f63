"""Contrastive decoding against a loop over whole texts without caches."""

import math
from typing import Any

import pytest
import torch

import zoo
from zoo.core.errors import ZooError
from zoo.core.spaces import Tokens
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.char import Char
from zoo.nn.samplers.contrastive import ContrastiveDecoder, contrastive_logits

TOKENIZER = Char().fit(["abcdefgh"])
SPEC = zoo.DataSpec(Tokens(12, TOKENIZER.vocab_size, dumps(TOKENIZER)), name="letters")


def model(seed: int, backbone: str, **sizes: Any) -> Any:
    torch.manual_seed(seed)
    made: Any = zoo.create_model("language_model", data=SPEC, backbone={"name": backbone, **sizes}).eval()
    for p in made.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return made


EXPERT = model(0, "transformer", d_model=16, n_layers=2, n_heads=2)
AMATEUR = model(1, "gru", d_model=8, n_layers=1)


def score(row: list[int], alpha: float, heat: float, expert: Any = EXPERT, amateur: Any = AMATEUR) -> list[float]:
    """Equations 2 and 3 for every token after a row, in single numbers."""
    with torch.no_grad():
        one, other = (m.net(torch.tensor([row]))[0, -1].double().tolist() for m in (expert, amateur))
    total, cold = sum(map(math.exp, one)), sum(math.exp(v / heat) for v in other)
    p, q = [math.exp(v) / total for v in one], [math.exp(v / heat) / cold for v in other]
    return [math.log(a / b) if a >= alpha * max(p) else -math.inf for a, b in zip(p, q, strict=True)]


@pytest.mark.parametrize(("alpha", "heat"), [(0.1, 1.0), (0.3, 2.0), (0.01, 0.5)])
def test_greedy_texts_are_those_of_the_loop(alpha: float, heat: float) -> None:
    prompts, differs = ["", "abc", "hgfe"], False
    options = {"amateur": AMATEUR, "alpha": alpha, "amateur_temperature": heat, "max_new_tokens": 6, "temperature": 0}
    for prompt, made in zip(prompts, EXPERT.generate(prompts, **options), strict=True):
        row, begun = EXPERT.prompt_ids(prompt), len(EXPERT.prompt_ids(prompt))
        for _ in range(6):
            scores = score(row, alpha, heat)
            row.append(max(range(len(scores)), key=scores.__getitem__))
            if row[-1] == EXPERT.end:
                break
        written = [token for token in row[begun:] if token != EXPERT.end]
        assert [t for t in made.tokens if t != EXPERT.end] == written
        plain = EXPERT.generate([prompt], max_new_tokens=6, temperature=0)[0]
        differs |= plain.tokens != made.tokens
    assert differs, "the control: greedy decoding of the expert alone"


def test_scores_are_the_formula_with_and_without_a_cache() -> None:
    both = ContrastiveDecoder(EXPERT.net, AMATEUR.net, 0.2, 1.5)
    with torch.no_grad():
        row = [EXPERT.begin, 0, 1, 2]
        logits, state = both.prefill(torch.tensor([row]))
        for token in (3, 4):
            wanted = score(row, 0.2, 1.5)
            assert logits[0].tolist() == pytest.approx(wanted, abs=1e-4)
            swapped = score(row, 0.2, 1.5, AMATEUR, EXPERT)
            assert logits[0].tolist() != pytest.approx(swapped, abs=0.1), "the control: expert and amateur swapped"
            logits = both.step(torch.tensor([token]), state)
            row.append(token)


def test_limits() -> None:
    """alpha = 1 is greedy decoding of the expert; a uniform amateur leaves its order."""
    logits, other = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0)).unbind(0)
    greedy = contrastive_logits(logits, other, 1.0)
    assert torch.equal(greedy.argmax(-1), logits.argmax(-1))
    assert (greedy.isfinite().sum(-1) == 1).all()
    flat = contrastive_logits(logits, torch.zeros_like(other), 1e-9)
    torch.testing.assert_close(flat.softmax(-1), logits.softmax(-1))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"alpha": 0.0}, "alpha=0.0: out of range"),
        ({"amateur_temperature": 0.0}, "amateur_temperature=0.0: out of range"),
        ({"amateur": 3}, "amateur: not a language model"),
        ({"draft": EXPERT}, "draft: not together with amateur"),
        ({"amateur": None, "alpha": 0.5}, "alpha=0.5, amateur_temperature=1.0: need an amateur"),
        ({"amateur": None, "amateur_temperature": 2.0}, "amateur_temperature=2.0: need an amateur"),
        ({"beams": 2}, "beams=2: beam search has no amateur"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ZooError, match=sentence):
        EXPERT.generate("a", **{"amateur": AMATEUR, **options})


def test_rows_are_independent() -> None:
    options = {"amateur": AMATEUR, "max_new_tokens": 10, "seed": 3}
    together = EXPERT.generate(["a", "bcd"], **options)
    assert together[0].tokens == EXPERT.generate(["a"], **options)[0].tokens
