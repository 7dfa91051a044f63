"""Questions about Python's own documentation, answered with and without retrieval.

    python -m zoo.benchmarks.documentation_answers

The facts are in the docstrings and signatures of the standard library. There are four kinds: the default of an
argument, the first argument, the module of a function, an exception. A network that can copy words learns to answer
from passages (`zoo.benchmarks.copying_reader`). The functions of a fifth of the modules are held out. Their passages
are in an index, and their questions are for testing.

The share of right answers is printed without a passage, with a random one, and with the one that BM25 finds first.
Beside them are the right passage, and the most frequent answer of training for each kind of question.
"""

import argparse
import ast
import random
import re
import tempfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from zoo.benchmarks.copying_reader import CopyingReader, Example, train_reader
from zoo.data.text.stdlib import library
from zoo.data.text.word_shapes import tokenise
from zoo.retrieval.index import Index

FORMS = {
    "default": "What is the default of {argument} in {module}.{name}?",
    "first": "What is the first argument of {module}.{name}?",
    "module": "Which module has the function {name}?",
    "exception": "Which exception does {module}.{name} raise?",
}
EXCEPTION = re.compile(r"\b[A-Z]\w*(?:Error|Exception)\b")
LONGEST = 120  # words of a passage
HELD = 5  # one of so many modules is for testing


@dataclass(frozen=True)
class Function:
    """A documented function: its module, name, arguments with defaults, and passage."""

    module: str
    name: str
    arguments: tuple[tuple[str, str | None], ...]
    passage: str

    @property
    def held_out(self) -> bool:
        """Whether its module is for testing, by CRC-32."""
        return zlib.crc32(self.module.encode()) % HELD == 0


@dataclass(frozen=True)
class Question:
    """A question of a kind about a function, and the words that answer it."""

    kind: str
    text: str
    answers: frozenset[str]
    function: Function

    @property
    def example(self) -> Example:
        """The question with the right passage."""
        return Example(self.text, self.function.passage, self.answers)


def functions() -> list[Function]:
    """Documented functions of modules of the standard library, without private ones."""
    found = []
    for path, source in library():
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        if any(part.startswith("_") for part in module.split(".")):
            continue
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and (doc := ast.get_docstring(node)):
                found.append(function_of(module, node, doc))
    return found


def function_of(module: str, node: ast.FunctionDef, doc: str) -> Function:
    """Read the signature; the passage has it, and the docstring up to so many words."""
    given = node.args
    places = [*given.posonlyargs, *given.args]
    late = [None] * (len(places) - len(given.defaults)) + [ast.unparse(value) for value in given.defaults]
    named = [ast.unparse(value) if value else None for value in given.kw_defaults]
    arguments = [(a.arg, value) for a, value in zip([*places, *given.kwonlyargs], [*late, *named], strict=True)]
    shown = ", ".join(name if value is None else f"{name}={value}" for name, value in arguments)
    text = f"{module}.{node.name}({shown}) " + " ".join(doc.split())
    words = list(re.finditer(r"\S+", text))[:LONGEST]
    return Function(module, node.name, tuple(arguments), text[: words[-1].end()])


def questions_of(every: Sequence[Function]) -> list[Question]:
    """All questions with an answer of one word that is in the passage."""
    names = Counter(f.name for f in every)
    found = []
    for f in every:
        facts: list[tuple[str, str, set[str]]] = [("default", a, {v}) for a, v in f.arguments if v is not None]
        facts += [("first", "", {f.arguments[0][0]})] if f.arguments else []
        facts += [("module", "", {f.module})] if names[f.name] == 1 else []
        facts += [("exception", "", raised)] if (raised := set(EXCEPTION.findall(f.passage.partition(")")[2]))) else []
        for kind, argument, answers in facts:
            shown = {f"{f.module}.{f.name}"} if kind == "module" else answers  # one word in the passage
            if shown <= set(tokenise(f.passage)):
                text = FORMS[kind].format(argument=argument, module=f.module, name=f.name)
                found.append(Question(kind, text, frozenset(shown), f))
    return found


def share_and_error(right: Sequence[bool]) -> tuple[float, float]:
    """Share of right answers, and half of its 95 % interval by the normal approximation."""
    share = sum(right) / len(right)
    return share, 1.96 * (share * (1 - share) / len(right)) ** 0.5


def ask(reader: CopyingReader, index: Index, asked: Sequence[Question], seed: int = 0) -> dict[str, list[bool]]:
    """Whether each question is answered rightly, without a passage and with each choice of one.

    Args:
        reader: the network.
        index: passages, with the name of the function in the metadata.
        asked: questions.
        seed: of the random passages.
    """
    chooser, every = random.Random(seed), sorted({q.function.passage for q in asked})
    found: dict[str, list[bool]] = {}
    for q in asked:
        hits = index.search_text(q.text, 1)
        passages = {
            "no passage": "",
            "a random passage": chooser.choice(every),
            "retrieved passage": hits[0].text if hits else "",
            "right passage": q.function.passage,
        }
        for name, passage in passages.items():
            found.setdefault(name, []).append(reader.answer(q.text, passage) in q.answers)
        own = [f"{q.function.module}.{q.function.name}"]
        found.setdefault("(the retrieved passage is the right one)", []).append(
            [hit.metadata["function"] for hit in hits] == own
        )
    return found


def measure(*, steps: int, most: int, seed: int = 0) -> tuple[dict[str, list[bool]], list[Question]]:
    """Train, index the passages of all functions, and ask questions about held-out modules.

    Args:
        steps: batches of the training.
        most: questions, chosen at random.
        seed: of the training and the choice.
    """
    every = functions()
    questions = questions_of(every)
    train, test = ([q for q in questions if q.function.held_out == held] for held in (False, True))
    passages = sorted({q.function.passage for q in train})
    reader = train_reader([q.example for q in train], passages, steps=steps, seed=seed)
    asked = random.Random(seed).sample(test, min(most, len(test)))
    with tempfile.TemporaryDirectory() as folder:
        index = Index.create(Path(folder) / "index")
        names = [{"function": f"{f.module}.{f.name}"} for f in every]
        index.add(None, [f.passage for f in every], names)
        found = ask(reader, index, asked, seed)
    usual = {
        kind: Counter(a for q in train if q.kind == kind for a in q.answers).most_common(1)[0][0] for kind in FORMS
    }
    found["(most frequent answer of the kind)"] = [usual[q.kind] in q.answers for q in asked]
    print(f"{len(every)} functions; {len(train)} questions for training, {len(test)} about held-out modules")
    return found, asked


def main() -> None:
    """Print shares of right answers, with 95 % intervals."""
    parser = argparse.ArgumentParser(description="Questions about Python's documentation, with and without retrieval.")
    parser.add_argument("--steps", type=int, default=300, help="batches of 64 questions")
    parser.add_argument("--questions", type=int, default=500, help="most questions that are asked")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for name, number in vars(given).items():
        if name != "seed" and number < 1:
            parser.exit(1, f"zoo: --{name}={number}: not a positive number. Give at least 1.\n")
    torch.set_num_threads(1)
    found, asked = measure(steps=given.steps, most=given.questions, seed=given.seed)
    counts = Counter(q.kind for q in asked)
    print(" | ".join(["", "all", *(f"{kind} ({counts[kind]})" for kind in FORMS)]))
    for name, right in found.items():
        cells = [right] + [[r for r, q in zip(right, asked, strict=True) if q.kind == kind] for kind in FORMS]
        shown = ["{:.3f} ± {:.3f}".format(*share_and_error(cell)) if cell else "" for cell in cells]
        print(" | ".join([name, *shown]))


if __name__ == "__main__":
    main()
