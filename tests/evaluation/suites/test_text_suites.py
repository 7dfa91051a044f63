"""Suites of text: memorisation, contamination, calibration and pass@k on known models; scores of a file."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import zoo
from zoo.cli.main import main
from zoo.data.batch import Batch
from zoo.data.text.scored_file import ScoredFile
from zoo.evaluation.context import EvaluationConfig, EvaluationContext
from zoo.evaluation.suites.calibration import CalibrationSuite
from zoo.evaluation.suites.text import PassAtKSuite
from zoo.evaluation.suites.text_memorisation import ContaminationSuite, TextMemorisationSuite
from zoo.evaluation.text_file import evaluate_file


@pytest.fixture(scope="module")
def letters(tmp_path_factory) -> Any:
    """Random words, in which eight letters determine the next one."""
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("letters") / "words.txt"
    path.write_text("\n".join(" ".join("".join(rng.choices("abcdefgh", k=5)) for _ in range(8)) for _ in range(400)))
    data = zoo.create_data("text", path=str(path), tokenizer="char", context=64)
    data.setup()
    return data


def context(model: Any, data: Any) -> EvaluationContext:
    return EvaluationContext(model, data, EvaluationConfig())


def test_a_model_that_knows_its_text_by_heart_is_told_from_others(letters) -> None:
    found = []
    for order in (12, 1):
        model = zoo.create_model("ngram", data=letters, order=order, temperature=0.1 if order > 1 else 1.0)
        stream = letters.train[1].long()
        model.net.fit(stream, torch.arange(len(stream)) == 0)
        suite = TextMemorisationSuite()
        assert suite.applies(model, letters)
        found.append({k.partition("@")[0]: m for k, m in suite.measure(context(model, letters)).items()})
    heart, unigram = found
    assert heart["extracted"].value == 1
    assert heart["extracted"].real_data_reference == 0, "held-out passages are not predictable"
    assert heart["longest_copy"].value > 100
    assert heart["copies50"].value > 0.9
    assert unigram["extracted"].value == unigram["copies50"].value == 0
    assert unigram["longest_copy"].value < 15
    assert unigram["longest_copy"].real_data_reference == heart["longest_copy"].real_data_reference < 15


def test_copies_in_the_test_split_are_counted(tmp_path) -> None:
    rng = random.Random(1)
    lines = [" ".join(rng.choices(["red", "green", "blue", "black", "white"], k=40)) for _ in range(40)]
    shares = {}
    for name in ("clean", "copied"):
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
        data = zoo.create_data("text", path=str(tmp_path / f"{name}.txt"), tokenizer="char", context=32)
        data.setup()
        if name == "copied":
            data.texts[2][:] = [data.texts[0][0][:500]]
        assert ContaminationSuite().applies(SimpleNamespace(spec=data.spec), data)  # type: ignore[arg-type]
        scores = ContaminationSuite().measure(context(None, data))
        shares[name] = next(m.value for k, m in scores.items() if "13grams" in k)
    assert shares["clean"] == 0
    assert shares["copied"] > 0.95, "the last n-gram may be cut within a word"


@torch.no_grad()
def test_calibration_reads_the_probabilities_of_the_split(letters) -> None:
    torch.manual_seed(0)
    model: Any = zoo.create_model("gru", data=letters, backbone={"d_model": 16, "n_layers": 1}).eval()
    scores = {k.partition("@")[0]: m for k, m in CalibrationSuite().measure(context(model, letters)).items()}
    right, confidence = [], []
    for batch in letters.test_dataloader():
        x, y = Batch.of(batch)
        p = model.net(x).softmax(-1)
        right += (p.argmax(-1) == y)[y >= 0].tolist()
        confidence += p.amax(-1)[y >= 0].tolist()
    assert scores["confidence"].value == pytest.approx(sum(confidence) / len(confidence), rel=1e-5)
    assert scores["confidence"].real_data_reference == pytest.approx(sum(right) / len(right), rel=1e-6)
    assert scores["ece15"].value >= abs(scores["confidence"].value - sum(right) / len(right)) - 1e-9
    assert not CalibrationSuite().applies(zoo.create_model("ngram", data=letters), letters)


class Guesser:
    """Answers the first half of the problems right one time in four, and the others never."""

    def generate(self, prompts: list[str], *, seed: int, **options: Any) -> list[Any]:
        assert options["temperature"] == 1
        asked = list(dict.fromkeys(prompts))
        assert all(prompts.count(prompt) == 16 for prompt in asked)
        good = [prompt for number, prompt in enumerate(asked) if seed + number < 64]
        texts = []
        for number, prompt in enumerate(prompts):
            a, sign, b = prompt.rstrip("=").partition("+" if "+" in prompt else "-")
            value = int(a) + int(b) if sign == "+" else int(a) - int(b)
            texts.append(str(value) if prompt in good and number % 4 == 0 else "?")
        return [SimpleNamespace(text=text) for text in texts]


def test_pass_at_k_of_known_shares() -> None:
    data = zoo.create_data("arithmetic_instructions", max_operand=40)
    data.setup()
    scores = PassAtKSuite().measure(context(Guesser(), data))
    values = {name: metric.value for name, metric in scores.items()}
    assert values["pass1_of16_t1@128_test"] == pytest.approx(0.5 * 0.25)
    assert values["pass4_of16_t1@128_test"] == pytest.approx(0.5 * (1 - (12 * 11 * 10 * 9) / (16 * 15 * 14 * 13)))
    assert values["pass16_of16_t1@128_test"] == 0.5


@torch.no_grad()
def test_a_file_is_scored_once_token_for_token(letters, tmp_path, cli, monkeypatch) -> None:
    """Blocks and overlapping windows, against a loop over all tokens with the context that each policy gives them."""
    torch.manual_seed(0)
    model: Any = zoo.create_model("gru", data=letters, backbone={"d_model": 16, "n_layers": 1}).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)
    file = tmp_path / "notes.txt"
    file.write_text("".join(random.Random(2).choices("abcdefgh ", k=203)))
    stream, size = letters.join(letters.tokenizer.encode_all([file.read_text()])).long(), 64
    for stride in (64, 32, 1):
        data = ScoredFile(file, letters.spec, stride)
        data.setup()
        nats = scored = 0.0
        for batch in data.test_dataloader():
            cost, y = model.token_nll(Batch.of(batch))
            nats, scored = nats + float(cost.sum()), scored + int((y >= 0).sum())
        assert scored == len(stream) - 1, "every token once"
        wanted = 0.0
        for target in range(1, len(stream)):
            window = 0 if target <= size else -(-(target - size) // stride) * stride
            assert window == 0 or target - window > size - stride
            logits = model.net(stream[None, window:target])[0, -1]
            wanted -= float(logits.log_softmax(0)[stream[target]])
        assert nats == pytest.approx(wanted, rel=1e-4), stride
    monkeypatch.setattr("zoo.evaluation.text_file.find_checkpoint", lambda place: Path("x"))
    monkeypatch.setattr("zoo.evaluation.text_file.resolve", lambda run: tmp_path)
    monkeypatch.setattr("zoo.evaluation.text_file.read_checkpoint", lambda path: None)
    monkeypatch.setattr("zoo.evaluation.text_file.restore_model", lambda checkpoint: model)
    names = list(evaluate_file("run", file).scores)
    assert [n for n in names if n.startswith("perplexity")] == [
        f"perplexity_char{letters.spec.tokens.vocab_size}@notes.txt_{policy}"
        for policy in ("blocks64", "windows64_stride32")
    ]
    told = cli("evaluate", "run", "--text", str(tmp_path / "none.txt"), entry=main)
    assert "no such file. Give a text file." in told.err
    told = cli("evaluate", "run", "--text", str(file), entry=main)
    assert told.code == 0, told.err
    assert "stride32" in told.out
