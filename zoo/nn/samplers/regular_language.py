"""Regular expressions as automata over bytes of UTF-8.

Supported: literals, `.`, classes, `|`, groups, `* + ? {m} {m,n} {m,}`, `\\d \\w \\s` and their complements (ASCII), and
escapes. The whole text must match. Lazy quantifiers describe the same texts as greedy ones.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from zoo.core.errors import ConfigError

Ranges = list[tuple[int, int]]  # inclusive, of code points or bytes
State = frozenset[int]

LAST = 0x10FFFF
SURROGATES = (0xD800, 0xDFFF)  # have no encoding
MAX_STATES = 50_000
MAX_WIDTH = 10_000  # of them at the same time
MAX_DEPTH = 100  # of groups
MAX_DIGITS = 9  # of a bound
CLASSES: dict[str, Ranges] = {
    "d": [(48, 57)],
    "w": [(48, 57), (65, 90), (95, 95), (97, 122)],
    "s": [(9, 13), (32, 32)],
}
CONTROL = {"n": 10, "t": 9, "r": 13, "f": 12, "v": 11, "0": 0}


def complement(ranges: Ranges) -> Ranges:
    """Code points outside of ranges."""
    found, begin = [], 0
    for low, high in sorted(ranges):
        if low > begin:
            found.append((begin, low - 1))
        begin = max(begin, high + 1)
    return [*found, (begin, LAST)] if begin <= LAST else found


def utf8_ranges(low: int, high: int) -> Iterator[Ranges]:
    """Sequences of byte ranges that encode exactly the code points from `low` to `high`."""
    if low < SURROGATES[0] and high > SURROGATES[1]:
        yield from utf8_ranges(low, SURROGATES[0] - 1)
        yield from utf8_ranges(SURROGATES[1] + 1, high)
        return
    low = SURROGATES[1] + 1 if SURROGATES[0] <= low <= SURROGATES[1] else low
    high = SURROGATES[0] - 1 if SURROGATES[0] <= high <= SURROGATES[1] else high
    if low > high:
        return
    cuts = [bound for bound in (0x7F, 0x7FF, 0xFFFF) if low <= bound < high]
    for bits in (6, 12, 18) if high > 0x7F and not cuts else ():
        rest = (1 << bits) - 1
        if low >> bits != high >> bits:
            if low & rest:
                cuts = [low | rest]
            elif high & rest != rest:
                cuts = [(high & ~rest) - 1]
        if cuts:
            break
    if cuts:
        yield from utf8_ranges(low, cuts[0])
        yield from utf8_ranges(cuts[0] + 1, high)
        return
    yield list(zip(chr(low).encode(), chr(high).encode(), strict=True))


class Parser:
    """Recursive descent over a pattern, to a tree of ("set", ranges), ("cat", ...), ("or", ...), ("repeat", ...)."""

    def __init__(self, pattern: str) -> None:
        self.pattern, self.place, self.depth = pattern, 0, 0

    def refuse(self, problem: str) -> NoReturn:
        """Refuse the pattern.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"regex={self.pattern[:60]!r}: {problem} at {self.place}. Write it without.")

    def peek(self) -> str:
        """The next character, or nothing."""
        return self.pattern[self.place : self.place + 1]

    def take(self) -> str:
        """Read a character."""
        if not (letter := self.peek()):
            self.refuse("an unfinished expression")
        self.place += 1
        return letter

    def parse(self) -> Any:
        """The tree of the whole pattern."""
        tree = self.alternatives()
        if self.peek():
            self.refuse("an unbalanced parenthesis")
        return tree

    def alternatives(self) -> Any:
        """Terms between bars."""
        terms = [self.term()]
        while self.peek() == "|":
            self.take()
            terms.append(self.term())
        return ("or", terms)

    def term(self) -> Any:
        """A sequence of repeated atoms."""
        atoms = []
        while self.peek() not in ("", "|", ")"):
            atoms.append(self.repeated(self.atom()))
        return ("cat", atoms)

    def repeated(self, atom: Any) -> Any:
        """An atom with its quantifier."""
        simple = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        if (letter := self.peek()) in simple and letter:
            self.take()
            least, most = simple[letter]
        elif letter == "{":
            end = self.pattern.find("}", self.place)
            low, comma, high = self.pattern[self.place + 1 : end].partition(",")
            if end < 0 or not (low or "0").isdecimal() or not (high or "0").isdecimal() or not (low or high):
                self.refuse("a repetition that is not {m}, {m,} or {m,n}")
            if max(len(low), len(high)) > MAX_DIGITS:
                self.refuse("a repetition with a huge bound")
            least, most = int(low or 0), (int(high) if high else None) if comma else int(low)
            if most is not None and most < least:
                self.refuse("a repetition whose bounds are reversed")
            self.place = end + 1
        else:
            return atom
        if self.peek() == "?":
            self.take()
        if self.peek() and self.peek() in "*+{":
            self.refuse("a quantifier of a quantifier")
        return ("repeat", atom, least, most)

    def atom(self) -> Any:
        """A group, a class or a character."""
        letter = self.take()
        if letter == "(":
            if self.peek() == "?":
                self.take()
                if self.take() != ":":
                    self.refuse("a lookaround, a flag or a named group")
            self.depth += 1
            if self.depth > MAX_DEPTH:
                self.refuse(f"more than {MAX_DEPTH} groups within each other")
            tree = self.alternatives()
            if self.peek() != ")":
                self.refuse("a missing parenthesis")
            self.take()
            self.depth -= 1
            return tree
        if letter == "[":
            return ("set", self.members())
        if letter == ".":
            return ("set", complement([(10, 10)]))
        if letter == "\\":
            return ("set", self.escape())
        if letter in "*+?{^$":
            self.refuse(f"{letter!r}, which needs a backslash or something before it,")
        return ("set", [(ord(letter), ord(letter))])

    def escape(self) -> Ranges:
        """The characters that an escape stands for."""
        letter = self.take()
        if letter.lower() in CLASSES:
            return CLASSES[letter] if letter in CLASSES else complement(CLASSES[letter.lower()])
        if letter in CONTROL:
            return [(CONTROL[letter], CONTROL[letter])]
        if letter in "xu":
            digits = self.pattern[self.place : self.place + (2 if letter == "x" else 4)]
            if len(digits) != (2 if letter == "x" else 4) or set(digits) - set("0123456789abcdefABCDEF"):
                self.refuse("an unfinished escape")
            self.place += len(digits)
            return [(int(digits, 16), int(digits, 16))]
        if letter.isalnum():
            self.refuse(f"the escape \\{letter}")
        return [(ord(letter), ord(letter))]

    def members(self) -> Ranges:
        """The characters of a class, after its bracket."""
        negated = self.peek() == "^"
        if negated:
            self.take()
        ranges: Ranges = []
        while self.peek() != "]" or not ranges:
            found = self.member()
            if self.peek() == "-" and self.pattern[self.place + 1 : self.place + 2] not in ("]", ""):
                self.take()
                last = self.member()
                if len(found) > 1 or len(last) > 1 or found[0][0] > last[0][1]:
                    self.refuse("a range whose ends are reversed")
                found = [(found[0][0], last[0][1])]
            ranges += found
        self.take()
        return complement(ranges) if negated else ranges

    def member(self) -> Ranges:
        """One character or escape of a class."""
        letter = self.take()
        return self.escape() if letter == "\\" else [(ord(letter), ord(letter))]


class Automaton:
    """Deterministic automaton over bytes, made state by state (Thompson 1968; subset construction).

    A state from which no text matches is None.

    Args:
        pattern: regular expression.

    Raises:
        ConfigError: syntax that is not supported, or too many states.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.edges: list[list[tuple[int, int, int]]] = []  # of each state: low and high byte, next state
        self.jumps: list[list[int]] = []  # next states without a byte
        begin, self.last = self._state(), self._state()
        self._build(Parser(pattern).parse(), begin, self.last)
        self.live = self._live()
        self.start: State | None = self._closed([begin])
        self.known: dict[State, dict[int, State]] = {}

    def step(self, state: State, byte: int) -> State | None:
        """State after one more byte."""
        return self.steps(state).get(byte)

    def steps(self, state: State) -> dict[int, State]:
        """State after each byte that has one."""
        if state not in self.known:
            after: dict[int, set[int]] = {}
            for low, high, to in {edge for place in state for edge in self.edges[place] if edge[2] in self.live}:
                for byte in range(low, high + 1):
                    after.setdefault(byte, set()).add(to)
            closed = {places: self._closed(places) for places in {frozenset(places) for places in after.values()}}
            found = {byte: closed[frozenset(places)] for byte, places in after.items()}
            self.known[state] = {byte: to for byte, to in found.items() if to is not None}
        return self.known[state]

    def accepts(self, state: State) -> bool:
        """Whether the bytes so far match."""
        return self.last in state

    def matches(self, text: bytes) -> bool:
        """Whether a whole text matches."""
        state = self.start
        for byte in text:
            state = None if state is None else self.step(state, byte)
        return state is not None and self.accepts(state)

    # -- construction ------------------------------------------------------------------------------------------

    def _state(self) -> int:
        if len(self.edges) >= MAX_STATES:
            raise ConfigError(f"regex={self.pattern[:60]!r}: too large. Use smaller bounds in its repetitions.")
        self.edges.append([])
        self.jumps.append([])
        return len(self.edges) - 1

    def _build(self, tree: Any, begin: int, end: int) -> None:
        """Add states for a tree between two states."""
        kind, *rest = tree
        if kind == "set":
            for low, high in rest[0]:
                for sequence in utf8_ranges(low, high):
                    self._chain(sequence, begin, end)
        elif kind == "or":
            for term in rest[0]:
                self._build(term, begin, end)
        elif kind == "cat":
            for item in rest[0]:
                place = self._state()
                self._build(item, begin, place)
                begin = place
            self.jumps[begin].append(end)
        else:
            item, least, most = rest
            self._repeat(item, least, most, begin, end)

    def _chain(self, sequence: Ranges, begin: int, end: int) -> None:
        for low, high in sequence[:-1]:
            place = self._state()
            self.edges[begin].append((low, high, place))
            begin = place
        self.edges[begin].append((*sequence[-1], end))

    def _repeat(self, item: Any, least: int, most: int | None, begin: int, end: int) -> None:
        for _ in range(least):
            place = self._state()
            self._build(item, begin, place)
            begin = place
        if most is None:
            loop = self._state()
            self.jumps[begin].append(loop)
            back = self._state()
            self._build(item, loop, back)
            self.jumps[back].append(loop)
            self.jumps[loop].append(end)
            return
        self.jumps[begin].append(end)
        for _ in range(most - least):
            place = self._state()
            self._build(item, begin, place)
            self.jumps[place].append(end)
            begin = place

    def _live(self) -> set[int]:
        """States from which the last one is reached."""
        before: dict[int, set[int]] = {}
        for place in range(len(self.edges)):
            for to in (*self.jumps[place], *(edge[2] for edge in self.edges[place])):
                before.setdefault(to, set()).add(place)
        live, queue = {self.last}, deque([self.last])
        while queue:
            for place in before.get(queue.popleft(), set()) - live:
                live.add(place)
                queue.append(place)
        return live

    def _closed(self, places: Iterable[int]) -> State | None:
        """Live states reached without a byte; None if there are none.

        Raises:
            ConfigError: too many.
        """
        found, queue = set(places) & self.live, list(places)
        while queue:
            for to in self.jumps[queue.pop()]:
                if to in self.live and to not in found:
                    found.add(to)
                    queue.append(to)
        if len(found) > MAX_WIDTH:
            raise ConfigError(
                f"regex={self.pattern[:60]!r}: too many ways to match. Use smaller bounds in its repetitions."
            )
        return frozenset(found) if found else None
