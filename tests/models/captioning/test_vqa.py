"""Answers: likelihoods by hand, pictures that matter, and accuracy beside answers without the picture."""

import pytest
import torch
from torchvision.utils import save_image

import zoo
from tests.contracts.specs import SPECS, examples
from zoo.cli.main import main
from zoo.core.spaces import ABSENT, Image, Questions, Tokens
from zoo.data.base import DataModule
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.data.text.tokenizers.base import dumps, encode_texts
from zoo.data.text.tokenizers.word import Word
from zoo.evaluation.context import EvaluationConfig, EvaluationContext
from zoo.evaluation.suites.question_answering import AnswerSuite, groups_of, most_frequent
from zoo.models.captioning.vqa import VisualQuestionAnswering
from zoo.viz.answers import AnswerView

SMALL = {
    "width": 8,
    "cell_side": 4,
    "d_model": 16,
    "n_layers": 1,
    "n_heads": 2,
    "n_features": 64,
}
ASKED = ["is the left half bright?", "is the upper half bright?", "is it bright?"]


class Halves(DataModule):
    """Pictures 8x8 with a bright or dark left half, and a bright or dark upper half; the third answer is always yes."""

    registered_name = "halves"

    def __init__(self) -> None:
        super().__init__(32, 0)
        self.tokenizer = Word().fit([*ASKED, "yes", "no"])
        self.length = max(len(self.tokenizer.encode(text)) for text in ASKED)

    @property
    def spec(self) -> zoo.DataSpec:
        text = Tokens(self.length, self.tokenizer.vocab_size, dumps(self.tokenizer))
        return zoo.DataSpec(Image(1, 8, 8), Questions(4, text), name="halves")

    def load(self) -> None:
        yes, no = encode_texts(self.tokenizer, ["yes", "no"], 1).flatten().tolist()
        rows = encode_texts(self.tokenizer, ASKED, self.length)
        splits = []
        for number, n in enumerate((1000, 40, 201)):
            generator = make_generator(7, number)
            left, upper = torch.randint(2, (2, n), generator=generator).float()
            x = 0.2 * torch.rand(n, 1, 8, 8, generator=generator)
            x[..., :4] += 0.4 * left.view(-1, 1, 1, 1)
            x[:, :, :4] += 0.4 * upper.view(-1, 1, 1, 1)
            truth = torch.stack([left, upper, torch.ones(n)], 1)
            asked = torch.randint(3, (n, 4), generator=generator)
            answers = torch.where(truth.gather(1, asked) > 0, yes, no)
            splits.append((x, torch.cat([rows[asked], answers[:, :, None]], 2)))
        self.train, self.val, self.test = splits

    @staticmethod
    def group_of(question: str) -> str:
        return "half" if "half" in question else "whole"


@pytest.fixture(scope="module")
def data() -> Halves:
    found = Halves()
    found.setup()
    return found


@pytest.fixture(scope="module")
def trained(data: Halves) -> VisualQuestionAnswering:
    torch.manual_seed(0)
    model = VisualQuestionAnswering(data.spec, **SMALL)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(150):
        rows = torch.randint(1000, (32,), generator=make_generator(step))
        optimizer.zero_grad()
        model.loss(Batch(data.train[0][rows], data.train[1][rows]))["loss"].backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def batch(data: Halves) -> Batch:
    return Batch(data.test[0][:12], data.test[1][:12])


def test_the_loss_is_the_mean_over_single_questions(trained: VisualQuestionAnswering, batch: Batch) -> None:
    """Each picture and each question alone, without padding, against a batch that shares pictures and questions."""
    total, right = 0.0, 0
    for x, rows in zip(batch.x, batch.y, strict=True):
        for row in rows:
            question = row[:-1][row[:-1] >= 0]
            with torch.no_grad():
                p = trained.answer_log_probs(x[None], question.view(1, 1, -1)).exp()[0, 0]
            assert float(p.sum()) == pytest.approx(1, abs=1e-5)
            total, right = total - float(p[row[-1]].log()), right + int(p.argmax() == row[-1])
    found = {name: value.detach() for name, value in trained.loss(batch).items()}
    assert float(found["loss"]) == pytest.approx(total / batch.y[..., 0].numel(), abs=1e-4)
    assert float(found["answer_right"]) == pytest.approx(right / batch.y[..., 0].numel())
    assert float(trained.loss(Batch(batch.x.roll(1, 0), batch.y))["loss"].detach()) > float(found["loss"]) + 0.5


def test_answers_follow_pictures_and_shuffled_pictures_give_chance(trained: VisualQuestionAnswering, data) -> None:
    found = AnswerSuite().measure(EvaluationContext(trained, data, EvaluationConfig()))
    values = {name.partition("@")[0]: metric for name, metric in found.items()}
    assert values["answer_accuracy_half"].value > 0.95
    assert values["answer_accuracy_whole"].value == values["answer_accuracy_whole_question_only"].value == 1
    for blind in ("answer_accuracy_half_question_only", "answer_accuracy_half_shuffled"):
        assert values[blind].value == pytest.approx(0.5, abs=4.5 * values[blind].error)
    both = values["answer_accuracy"].value, values["answer_accuracy_shuffled"].value
    assert both[0] > 0.95 > 0.8 > both[1] > 0.5


def test_scores_are_counted_by_hand(data: Halves) -> None:
    y = torch.tensor([[[5, ABSENT, 1], [5, ABSENT, 1]], [[5, ABSENT, 2], [6, 7, 2]]])
    assert most_frequent(y) == {(5, ABSENT): 1, (6, 7): 2}
    assert most_frequent(y[1:]) == {(5, ABSENT): 2, (6, 7): 2}
    questions = data.test[1][:30, :, :-1]
    groups = groups_of(data, questions)
    texts = [[data.tokenizer.decode(t for t in q if t >= 0) for q in rows] for rows in questions.tolist()]
    assert groups["half"].tolist() == [["half" in text for text in rows] for rows in texts]
    assert bool((groups["half"] ^ groups["whole"]).all())
    assert bool(groups[""].all())


def test_answers_are_words_that_do_not_depend_on_the_batch(trained: VisualQuestionAnswering, batch: Batch) -> None:
    together = trained.answer(batch.x, ASKED)
    assert together == [trained.answer(x[None], [question for question in ASKED])[0] for x in batch.x]
    assert {answer for row in together for answer in row} == {"yes", "no"}
    assert trained.answer(batch.x[:0], ASKED) == []
    assert trained.answer(batch.x[:2], []) == [[], []]
    with pytest.raises(zoo.ConfigError, match="empty"):
        trained.answer(batch.x, [" "])
    with pytest.raises(zoo.DataError, match="tokens, more than"):
        trained.answer(batch.x, ["is the left half of the picture as bright as the upper half?"])


def test_labels_are_answers_and_captions_are_not_questions() -> None:
    settings = {k: v for k, v in SMALL.items() if k != "cell_side"}
    labelled = VisualQuestionAnswering(SPECS["image"], **settings).eval()
    assert "answer" not in labelled.abilities
    some = examples(SPECS["image"], 4)
    questions, answers = labelled.questions_of(some.y)
    assert answers[:, 0].tolist() == some.y.tolist()
    assert labelled.answer_log_probs(some.x, questions).shape == (4, 1, 10)
    for spec in (zoo.DataSpec(Image(1, 8, 8)), zoo.DataSpec(Image(1, 8, 8), Tokens(4, 9))):
        with pytest.raises(zoo.DataError, match="no questions"):
            VisualQuestionAnswering(spec, **SMALL)


def test_questions_are_answered_from_the_command_line(trained, data, tmp_path, cli, batch: Batch) -> None:
    assert AnswerView().applies(trained, data)
    page = AnswerView().show(trained, data)["samples"]
    assert page.count("answered") == 16
    assert page.count("*") / 16 > 0.8
    run = tmp_path / "run"
    model = zoo.fit("vqa", "sort_of_clevr", folder=run, max_steps=2, progress=False)
    save_image(torch.rand(3, 40, 32), tmp_path / "in.png")
    asked = ["is the red object on the left?", "what is the shape of the grey object?"]
    done = cli("answer", str(run), *asked, "--image", str(tmp_path / "in.png"), entry=main)
    assert done.code == 0, done.err
    assert [line.split(": ")[1].split("? ")[0] + "?" for line in done.out.strip().splitlines()] == asked
    wrong = cli("answer", str(run), "what " * 40, "--image", str(tmp_path / "in.png"), entry=main)
    assert wrong.code != 0
    assert "more than" in wrong.err
    assert "answered" in (run / "samples" / "final.txt").read_text()
    assert model is not None
