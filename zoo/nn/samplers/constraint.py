"""Constrained decoding: at each step only the tokens whose bytes can still lead to a match (2307.09702).

The probabilities of the other tokens become zero, and those of the rest are normalised again: each token is drawn from
p(x_t | x_<t, x_t can be continued to a match).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from zoo.core.errors import ConfigError
from zoo.nn.samplers.json_schema import schema_pattern
from zoo.nn.samplers.regular_language import Automaton, State

MAX_SEARCHED = 50_000  # states of the regular expression, in a search for a match


@dataclass(frozen=True)
class Vocabulary:
    """Spelling of tokens.

    Args:
        pieces: bytes of every token; empty for special ones.
        ends: tokens that end a text.
    """

    pieces: tuple[bytes, ...]
    ends: tuple[int, ...]


def constraint_pattern(regex: str, choices: Sequence[str], json_schema: str | Mapping[str, Any] | None) -> str:
    """The one of three constraints that is set, as a regular expression; nothing if none is.

    Raises:
        ConfigError: more than one, or one that is not supported.
    """
    given = {"regex": regex, "choices": choices, "json_schema": json_schema}
    names = [name for name, value in given.items() if value]
    if len(names) > 1:
        raise ConfigError(f"{names[0]}: not together with {names[1]}. Set one of them.")
    if isinstance(choices, str) or not all(isinstance(choice, str) and choice for choice in choices):
        raise ConfigError(f"choices={choices!r}: must be a list of non-empty strings. Correct it.")
    if choices:
        return "|".join(re.sub(r"([^\w\s])", r"\\\1", choice, flags=re.ASCII) for choice in choices)
    return schema_pattern(json_schema) if json_schema else regex


class TokenConstraint:
    """Automaton over tokens.

    Args:
        pattern: regular expression of whole texts.
        vocabulary: of the model.

    Raises:
        ConfigError: no text of these tokens matches.
    """

    def __init__(self, pattern: str, vocabulary: Vocabulary) -> None:
        self.automaton, self.ends = Automaton(pattern), vocabulary.ends
        self.known: dict[State, dict[int, State]] = {}
        self.trie: dict[int, Any] = {}  # byte -> the same; -1 -> tokens that end here
        for token, piece in enumerate(vocabulary.pieces):
            if piece and token not in self.ends:
                node = self.trie
                for byte in piece:
                    node = node.setdefault(byte, {})
                node.setdefault(-1, []).append(token)
        # With a token for every byte, a match by bytes is one by tokens.
        self.complete = {bytes([byte]) for byte in range(256)} <= set(vocabulary.pieces)
        self.alive: dict[State, bool] = {}
        start = self.automaton.start
        if start is None or not self._alive(start):
            raise ConfigError(f"regex={pattern[:60]!r}: no text of the model's tokens matches. Write another one.")
        self.start = start

    def allowed(self, state: State) -> dict[int, State]:
        """Tokens that can follow, each with the state after it; without the tokens that end a text."""
        if state not in self.known:
            self.known[state] = {t: to for t, to in self._reached(state).items() if self.complete or self._alive(to)}
        return self.known[state]

    def accepts(self, state: State) -> bool:
        """Whether the text may end here."""
        return self.automaton.accepts(state)

    def _reached(self, state: State) -> dict[int, State]:
        """State after each token whose bytes have one."""
        found: dict[int, State] = {}
        stack: list[tuple[dict[int, Any], State]] = [(self.trie, state)]
        while stack:
            node, place = stack.pop()
            steps = self.automaton.steps(place)
            for byte, below in node.items():
                if byte >= 0 and (to := steps.get(byte)) is not None:
                    found |= dict.fromkeys(below.get(-1, ()), to)
                    stack.append((below, to))
        return found

    def _alive(self, state: State) -> bool:
        """Whether tokens lead from a state to a match.

        Raises:
            ConfigError: the search takes too long.
        """
        if self.complete:
            return True
        seen, stack, before, searched = {state}, [state], dict[State, list[State]](), 0
        while stack:
            place = stack.pop()
            if self.alive.get(place, self.accepts(place)):
                # Every state on a way to here is alive.
                todo = [place]
                while todo:
                    if not self.alive.get(one := todo.pop(), False):
                        self.alive[one] = True
                        todo += before.get(one, [])
                return True
            if place in self.alive:
                continue
            searched += len(place)
            if searched > MAX_SEARCHED:
                raise ConfigError(
                    f"regex={self.automaton.pattern[:60]!r}: a match was not found among the model's tokens in "
                    f"{MAX_SEARCHED:,} states. Use smaller bounds in its repetitions."
                )
            for to in set(self._reached(place).values()):
                before.setdefault(to, []).append(place)
                if to not in seen:
                    seen.add(to)
                    stack.append(to)
        self.alive |= dict.fromkeys(seen, False)
        return False


@lru_cache(maxsize=16)
def token_constraint(pattern: str, vocabulary: Vocabulary) -> TokenConstraint:
    """The constraint of a pattern; equal ones share what they have computed."""
    return TokenConstraint(pattern, vocabulary)
