"""SimCSE: the loss by its formula, without dropout by a closed form, and a task that needs pairs."""

import math

import pytest
import torch
from torch.nn import functional as F

import zoo
from zoo.core.spaces import ABSENT, Pair, Tokens
from zoo.data.batch import Batch
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.char import Char
from zoo.models.embedding.simcse import SimCSE, longest_texts

LETTERS = Char().fit(["abcdefgh "])
TEXT = Tokens(10, LETTERS.vocab_size, dumps(LETTERS))
SPEC = zoo.DataSpec(TEXT, name="letters")
PAIRS = zoo.DataSpec(Pair(TEXT, TEXT), name="pairs")
BERT = {"name": "bert", "backbone": {"name": "transformer_encoder", "d_model": 16, "n_layers": 1, "n_heads": 2}}
GPT = {"name": "language_model", "backbone": {"name": "transformer", "d_model": 16, "n_layers": 1, "n_heads": 2}}
LSTM = {"name": "language_model", "backbone": {"name": "lstm", "d_model": 16, "n_layers": 1}}


def make(spec: zoo.DataSpec = SPEC, text_model: dict | None = None, **given) -> SimCSE:
    torch.manual_seed(0)
    return SimCSE(spec, text_model=text_model or BERT, **given)


def rows(*texts: str) -> torch.Tensor:
    ids = [[*LETTERS.encode(text), LETTERS.end] for text in texts]
    return torch.tensor([row + [ABSENT] * (10 - len(row)) for row in ids])


def windows(*texts: str) -> Batch:
    """One text in a window."""
    x = rows(*texts)
    return Batch(x.clamp(min=0), x.roll(-1, 1).masked_fill(x < 0, ABSENT))


@pytest.mark.parametrize("text_model", [BERT, GPT, LSTM])
def test_the_loss_is_the_cross_entropy_of_b_by_b(text_model: dict) -> None:
    """Rows are first forms and columns second forms; the right column is the diagonal."""
    model = make(PAIRS, text_model, positives="pairs", temperature=0.2, dropout=0.0)
    x, y = rows("abc", "dd", "e fg", "hab"), rows("a", "bcd", "ee", "gh")
    with torch.no_grad():
        terms = model.loss(Batch(x, y))
        first, second = (F.normalize(model.head(model.pool(one)), dim=1) for one in (x, y))
        cosines = torch.tensor([[float(a @ b) for b in second] for a in first])
        wanted = F.cross_entropy(cosines / 0.2, torch.arange(4))
        assert float(terms["loss"]) == pytest.approx(float(wanted), abs=1e-5)
        shuffled = F.cross_entropy(cosines / 0.2, torch.tensor([1, 2, 3, 0]))
        assert abs(float(shuffled - wanted)) > 1e-3, "which text belongs to which counts"
        distance = sum(float((a - b).square().sum()) for a, b in zip(first, second, strict=True)) / 4
        assert float(terms["alignment"]) == pytest.approx(distance, abs=1e-5)
        spread = [math.exp(-2 * float((first[i] - first[j]).square().sum())) for i in range(4) for j in range(i)]
        assert float(terms["uniformity"]) == pytest.approx(math.log(sum(spread) / 6), abs=1e-4)


def test_without_dropout_both_forms_are_equal() -> None:
    """Then the loss is log(1 + sum of exp((cos - 1) / t)); with dropout it is another."""
    batch = windows("abc", "dd a", "e fg")
    still, moving = make(dropout=0.0, temperature=0.5), make(dropout=0.5, temperature=0.5)
    assert still.training
    with torch.no_grad():
        terms = still.loss(batch)
        z = F.normalize(still.head(still.pool(rows("abc", "dd a", "e fg"))), dim=1)
        wanted = ((z @ z.T - 1) / 0.5).logsumexp(1).mean()
        assert float(terms["alignment"]) == pytest.approx(0, abs=1e-6)
        assert float(terms["loss"]) == pytest.approx(float(wanted), abs=1e-5)
        assert float(moving.loss(batch)["alignment"]) > 1e-3
        moving.eval()
        assert float(moving.loss(batch)["alignment"]) == pytest.approx(0, abs=1e-6)
        alike = torch.zeros(3, 10, dtype=torch.long)  # one sentence three times: no negatives are left
        assert float(still.loss(Batch(alike, alike))["loss"]) == pytest.approx(0, abs=1e-6)


def test_the_longest_text_of_a_window_is_read_and_padding_does_not_count() -> None:
    model = make(dropout=0.0).eval()
    parts = [("ab", "cde", "f g"), ("abcd", "ef", "g"), ("a" * 20,), ("ab", "cd", "e")]
    ids = [[token for text in texts for token in (*LETTERS.encode(text), LETTERS.end)][:10] for texts in parts]
    x = torch.tensor([row + [ABSENT] * (10 - len(row)) for row in ids])
    found, other = model.sentences(Batch(x.clamp(min=0), x))
    assert torch.equal(found, other)
    assert torch.equal(found, rows("cde", "abcd", "a" * 9, "ab"))
    with torch.no_grad():
        torch.testing.assert_close(model.embed(["cde", "abcd", "a" * 30, "ab"]), model.pool(found))
        torch.testing.assert_close(model.embed("cde")[0], model.embed(["ab", "cde"])[1])
        assert not torch.allclose(model.embed("ab"), model.embed("ba"), atol=1e-4)
    nothing = longest_texts(torch.full((1, 4), LETTERS.end), [LETTERS.end], LETTERS.end)
    assert nothing.tolist() == [[LETTERS.end, ABSENT, ABSENT, ABSENT]]
    with pytest.raises(zoo.ZooError, match="empty"):
        model.embed(["a", ""])


def test_pairs_teach_what_dropout_cannot() -> None:
    """The partner of a sentence is the next letter, three times. Shuffled partners are the negative control."""
    letters = "abcdefgh"
    x = rows(*(f"{a}{b}" for a in letters for b in letters if a != b))
    after = dict(zip(letters, "bcdefgha", strict=True))
    y = rows(*(f"{after[a]}{after[b]}" * 2 for a in letters for b in letters if a != b))

    def accuracy(y: torch.Tensor) -> float:
        model = make(PAIRS, positives="pairs", dropout=0.0)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        order = torch.arange(len(x))
        train, held = order[order % 4 > 0], order[order % 4 == 0]
        for _ in range(60):
            optimizer.zero_grad()
            model.loss(Batch(x[train], y[train]))["loss"].backward()
            optimizer.step()
        with torch.no_grad():
            return float(model.loss(Batch(x[held], y[held]))["form_found"])

    assert accuracy(y) > 0.6
    assert accuracy(y[torch.randperm(len(y), generator=torch.Generator().manual_seed(1))]) < 0.3


def test_validation_repeats_its_masks_and_leaves_the_generator_alone() -> None:
    model = make(dropout=0.3).eval()
    logged: list[dict] = []
    model.log_epoch_mean = lambda terms, n: logged.append(terms)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with torch.no_grad():
        for number in (0, 0, 1):
            model.validation_step(windows("abc", "dd a", "e fg"), number)
    assert torch.equal(before, torch.get_rng_state())
    assert not model.training
    assert logged[0] == logged[1] != logged[2]
    assert float(logged[0]["val/alignment"]) > 0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(zoo.ZooError, match=r"positives=pairs: .* has no pairs"):
        make(positives="pairs")
    with pytest.raises(zoo.ZooError, match="without a backbone"):
        make(text_model={"name": "ngram"})


def test_pairs_are_trained_from_the_command_line(tmp_path, cli) -> None:
    (tmp_path / "a.tsv").write_text("a\tb\n" + "\n".join(f"ein Satz {i}\ta line {i * i}" for i in range(200)))
    few = ["trainer=smoke", "trainer.max_steps=2", "trainer.val_check_interval=1", "data=pairs", "data/tokenizer=char"]
    told = cli(*few, f"data.path={tmp_path / 'a.tsv'}", "model=simcse", "model.positives=pairs", "hydra.run.dir=run")
    assert told.code == 0, told.err
    assert zoo.load(tmp_path / "run").hparams["positives"] == "pairs"
    assert {"val/alignment", "val/uniformity"} <= set(
        (tmp_path / "run/metrics.csv").read_text().split("\n")[0].split(",")
    )


@pytest.mark.parametrize("origin", ["bert", "gpt"])
def test_it_begins_from_a_run(origin: str, tmp_path, cli) -> None:
    (tmp_path / "a.txt").write_text("\n".join(f"line {i} of {i % 7} words" for i in range(300)))
    few = ["trainer=smoke", "trainer.max_steps=2", "trainer.val_check_interval=1", "data=text", "data.lines=true"]
    few += [f"data.path={tmp_path / 'a.txt'}", "data.context=16", "data/tokenizer=char", "data.batch_size=4"]
    small = ["model.backbone.d_model=16", "model.backbone.n_layers=1", "model.backbone.n_heads=2"]
    told = cli(*few, f"model={origin}", *small, "hydra.run.dir=first")
    assert told.code == 0, told.err
    told = cli(*few, "model=simcse", "init_from=first", "model.optimizer.lr=1e-12", "hydra.run.dir=second")
    assert told.code == 0, told.err
    first, second = zoo.load(tmp_path / "first"), zoo.load(tmp_path / "second")
    for name, weight in first.state_dict().items():
        torch.testing.assert_close(weight, second.text_model.state_dict()[name], rtol=0, atol=1e-9)
    assert second.text_model.registered_name == first.registered_name
    assert second.embed(["line 3", "words of"]).shape == (2, 16)
