"""Answers that pictures confirm, and the best answers without a picture."""

import math

import pytest
import torch

import zoo
from zoo.data.image.sort_of_clevr import (
    ANSWERS,
    COLOURS,
    KINDS,
    NUMBERS,
    QUESTIONS,
    RADIUS,
    SHAPES,
    SIDE,
    answers_of,
    scenes,
)
from zoo.data.loader import make_generator
from zoo.evaluation.suites.question_answering import most_frequent


@pytest.fixture(scope="module")
def data():
    found = zoo.create_data("sort_of_clevr")
    found.setup()
    return found


def texts(data, y: torch.Tensor) -> list[list[tuple[str, str]]]:
    """Questions and answers of each picture."""
    decode = data.tokenizer.decode
    return [[(decode(t for t in q if t >= 0), decode([a])) for *q, a in rows] for rows in y.tolist()]


def read_scene(picture: torch.Tensor) -> tuple[list[tuple[float, float]], list[str]]:
    """A judge without the renderer: places and shapes of the six colours, from pixels."""
    palette = torch.tensor(list(COLOURS.values())) / 255  # (6, 3)
    grid = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE)).float()  # rows and columns
    light = (picture - 20 / 255).sum(0).flatten()
    places, shapes = [], []
    for colour in palette:
        pure = (picture - colour[:, None, None]).abs().amax(0) < 0.01
        centre = pure.nonzero().float().mean(0)
        places.append((float(centre[1]), float(centre[0])))
        near = (grid - centre).norm(dim=1) < 1.5 * RADIUS
        area = float(light[near].sum() / (colour - 20 / 255).sum())
        shapes.append(SHAPES[int(area > 19.3)])  # a circle has 18.1, and a square 4.5^2 = 20.2 to 5^2 by its place
    return places, shapes


def answer(question: str, places: list[tuple[float, float]], shapes: list[str]) -> str:
    """Answer a question from places and shapes, by plain rules."""
    me = next(k for k, colour in enumerate(COLOURS) if f" {colour} " in question)
    apart = {k: math.dist(places[k], places[me]) for k in range(len(COLOURS)) if k != me}
    if "left" in question:
        return "yes" if places[me][0] < (SIDE - 1) / 2 else "no"
    if "top" in question:
        return "yes" if places[me][1] < (SIDE - 1) / 2 else "no"
    if "closest" in question:
        return shapes[min(apart, key=lambda k: apart[k])]
    if "furthest" in question:
        return shapes[max(apart, key=lambda k: apart[k])]
    return NUMBERS[shapes.count(shapes[me]) - 1] if "many" in question else shapes[me]


def test_answers_follow_from_the_pixels(data) -> None:
    """Nearly always: a border between two pixels is not read exactly. Answers of another picture do not follow."""
    x, y = data.fetch(data.test, torch.arange(100), torch.Generator(), train=False)
    right = {name: [] for name in ("own", "other")}
    asked = texts(data, y)
    for number, picture in enumerate(x):
        scene = read_scene(picture)
        for name, pairs in (("own", asked[number]), ("other", asked[number - 1])):
            right[name] += [answer(question, *scene) == truth for question, truth in pairs]
    assert sum(right["own"]) / len(right["own"]) > 0.95
    assert sum(right["other"]) / len(right["other"]) < 0.6


def test_each_picture_has_ten_questions_of_each_group_with_answers_of_one_token(data) -> None:
    for pairs in texts(data, data.val[1][:50]):
        groups = [data.group_of(question) for question, _ in pairs]
        assert groups.count("relational") == groups.count("non_relational") == 10
        assert {answer for _, answer in pairs} <= set(ANSWERS)
    assert {question for pairs in texts(data, data.train[1][:200]) for question, _ in pairs} == set(QUESTIONS)
    assert len(QUESTIONS) == len(KINDS) * len(COLOURS) == 36
    with pytest.raises(ValueError, match="not in list"):
        data.group_of("is the purple object on the left?")


def test_the_best_answer_without_a_picture_has_the_exact_accuracy(data) -> None:
    """One half for shapes and places; 10 / 32 for three or four of six, when one is given: C(5, 2) / 2^5."""
    known = most_frequent(data.train[1])
    exact = {"many": math.comb(5, 2) / 2**5, "": 0.5}
    rows = data.train[1][..., :-1].flatten(0, 1)
    truth = data.train[1][..., -1].flatten()
    distinct, place = rows.unique(dim=0, return_inverse=True)
    for number, row in enumerate(distinct.tolist()):
        question = data.tokenizer.decode(t for t in row if t >= 0)
        answers = truth[place == number]
        share = float((answers == known[tuple(row)]).double().mean())
        p = exact["many" if "many" in question else ""]
        assert -0.001 < share - p < 4.5 * math.sqrt(p * (1 - p) / len(answers)), question
        others = [a for a in data.tokenizer.encode("two") if a != known[tuple(row)]]
        assert float((answers == others[0]).double().mean()) < p - 0.05, "negative control: another answer"


def test_objects_do_not_overlap_and_answers_are_those_of_a_scene_by_hand() -> None:
    places, shapes = scenes(300, make_generator(1))
    gaps = torch.cdist(places, places) + 100 * torch.eye(len(COLOURS))
    assert float(gaps.min()) > 2 * 2**0.5 * RADIUS, "also the corners of squares"
    assert float(places.min()) >= RADIUS
    assert float(places.max()) <= SIDE - RADIUS
    assert 0.4 < float(shapes.double().mean()) < 0.6
    row = torch.tensor([[[3.0, 3.0], [9.0, 3.0], [29.0, 29.0], [20.0, 3.0], [3.0, 20.0], [20.0, 20.0]]])
    kinds = torch.tensor([[0, 1, 1, 0, 0, 0]])
    found = dict(zip(QUESTIONS, (ANSWERS[i] for i in answers_of(row, kinds)[0].tolist()), strict=True))
    assert found["what is the shape of the red object?"] == "circle"
    assert found["is the red object on the left?"] == "yes"
    assert found["is the blue object at the top?"] == "no"
    assert found["what is the shape of the object closest to the red object?"] == "square"
    assert found["what is the shape of the object furthest from the red object?"] == "square"
    assert found["what is the shape of the object closest to the blue object?"] == "circle"
    assert found["how many objects have the shape of the green object?"] == "two"
    assert found["how many objects have the shape of the grey object?"] == "four"


def test_a_rule_without_objects_has_the_accuracy_of_the_binomial_distribution() -> None:
    """All shapes are the more frequent one, and all counts its number: .656 and .813, as the documentation states."""
    places, shapes = scenes(3000, make_generator(2))
    truth = answers_of(places, shapes).view(len(shapes), len(KINDS), len(COLOURS))
    squares = shapes.sum(1)  # (N,)
    most = torch.maximum(squares, 6 - squares)
    shape, count = (squares > 3).long(), ANSWERS.index("one") + most - 1
    weights = [math.comb(6, k) / 2**6 for k in range(7)]
    p_shape = sum(w * max(k, 6 - k) / 6 for k, w in enumerate(weights))
    p_count = sum(w * (1 if k == 3 else max(k, 6 - k) / 6) for k, w in enumerate(weights))
    assert (round(p_shape, 3), round(p_count, 4)) == (0.656, 0.8125)
    for number, (found, p) in {
        0: (shape, p_shape),
        3: (shape, p_shape),
        4: (shape, p_shape),
        5: (count, p_count),
    }.items():
        right = (truth[:, number] == found[:, None]).double().mean(1)  # of each scene
        assert abs(float(right.mean()) - p) < 4.5 * float(right.std()) / len(right) ** 0.5
        assert abs(float((truth[:, number] == found.roll(1)[:, None]).double().mean()) - p) > 0.05, "another picture"
