"""Prompts and answers out of batches, through a model, and back."""

from typing import Any

import torch

import zoo
from zoo.core.spaces import Tokens
from zoo.nn.samplers.rollout import PromptExample, collate_examples, complete, prompt_examples
from zoo.nn.samplers.sampling_params import SamplingParams

END = 9
A, B, C = (
    PromptExample([END, 1, 2], [3, END]),
    PromptExample([END, 4], [5, 6, 7, END]),
    PromptExample([END, 8, 8, 8], [END]),
)


def test_rows_and_questions_are_inverse() -> None:
    x, y = collate_examples([q.prompt for q in (A, B, C)], [q.answer for q in (A, B, C)], END)
    assert x.tolist() == [[9, 1, 2, 3, 9], [9, 4, 5, 6, 7], [9, 8, 8, 8, 9]]
    assert y.tolist() == [[-100, -100, 3, 9, -100], [-100, 5, 6, 7, 9], [-100, -100, -100, 9, -100]]
    assert prompt_examples(x, y, END, END) == [A, B, C]


def test_a_row_that_packs_texts_has_a_question_for_each() -> None:
    x, y = (torch.cat(list(side), 0)[None] for side in zip(*(single(q) for q in (A, B, C)), strict=True))
    assert prompt_examples(x, y, END, END) == [A, B, C]


def single(q: PromptExample) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = collate_examples([q.prompt], [q.answer], END)
    return x[0], y[0]


def test_without_a_prompt_a_text_begins_from_nothing() -> None:
    x = torch.tensor([[3, 4, END, 5], [3, 4, 5, 6]])
    y = torch.tensor([[4, END, 5, 6], [4, 5, 6, 7]])
    assert prompt_examples(x, y, END, END) == [PromptExample([END], [4, END]), PromptExample([END], [4, 5, 6, 7])]


def test_an_answer_that_is_cut_has_no_end() -> None:
    assert prompt_examples(torch.tensor([[END, 1, 2]]), torch.tensor([[-100, 2, 3]]), END, END) == [
        PromptExample([END, 1], [2, 3])
    ]


def test_what_begins_a_text_may_be_another_token() -> None:
    begin, q = 0, PromptExample([0, 1, 2], [3, END])
    assert prompt_examples(*collate_examples([q.prompt] * 2, [q.answer] * 2, END), begin, END) == [q, q]
    assert prompt_examples(torch.tensor([[3, 4]]), torch.tensor([[4, 5]]), begin, END) == [
        PromptExample([begin], [4, 5])
    ]


PROMPTS = [[END, *range(k)] for k in range(8)]


def network(seed: int) -> Any:
    torch.manual_seed(seed)
    spec = zoo.DataSpec(Tokens(14, END + 1), name="digits")
    net = zoo.create_model("gpt", data=spec, backbone={"d_model": 16, "n_layers": 1, "n_heads": 2}).net.eval()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=1.0)
    return net


def test_completions_in_a_batch_are_those_of_a_loop() -> None:
    greedy, seen = SamplingParams(temperature=0), set()
    for seed in range(12):
        net, limit = network(seed), 99 if seed % 2 else 3
        for prompt, written in zip(PROMPTS, complete(net, PROMPTS, greedy, [END], limit), strict=True):
            wanted: list[int] = []
            while len(wanted) < min(14 - 8 + 1, limit) and END not in wanted:
                with torch.no_grad():
                    wanted.append(int(net(torch.tensor([prompt + wanted]))[0, -1].argmax()))
            assert written == wanted
            seen.add(END in wanted)
    assert seen == {True, False}, "some end, some do not"
    other = [END, 2, 5]  # each of several tokens ends a text
    for prompt, row in zip(PROMPTS, complete(network(1), PROMPTS, greedy, [END], 99), strict=True):
        first = next((i for i, token in enumerate(row) if token in other), len(row) - 1)
        (short,) = complete(network(1), [prompt], greedy, other, len(row))
        assert short == row[: first + 1]
    assert complete(network(0), [[END] * 15], greedy, [END], 9) == [[]], "no room"
