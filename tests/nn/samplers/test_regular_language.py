"""Automata of regular expressions and of JSON schemas against Python's `re` and `json`, by enumeration."""

import itertools
import json
import random
import re

import pytest

from zoo.core.errors import ConfigError
from zoo.nn.samplers.json_schema import schema_pattern
from zoo.nn.samplers.regular_language import LAST, Automaton, utf8_ranges

PATTERNS = [
    "a*b|c", "(ab|a)(c|bcd)", "[a-c]{2,3}", "[^a]b?", "a{0,2}?c+", r"\d+\.\d", "(a|b)*abb", "", "a||b", "[]a]+",
    r"[a\-b]", r"\w\s\W", "(?:ab){2}", "a.b", r"[^\W_]",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_text_matches_as_in_python(pattern):
    automaton, oracle = Automaton(pattern), re.compile(pattern, re.ASCII)
    texts = ["".join(letters) for n in range(4) for letters in itertools.product("abcd.1 x-_]\n", repeat=n)]
    for text in texts:
        assert automaton.matches(text.encode()) == bool(oracle.fullmatch(text)), text


@pytest.mark.parametrize(
    ("low", "high"), [(0, LAST), (0x7F, 0x80), (0x3B1, 0x3C9), (0xD700, 0xE000), (0x61, 0x10FFF0), (0xFFFF, 0x10000)]
)
def test_ranges_of_bytes_encode_a_range_of_characters_once(low, high):
    sequences = list(utf8_ranges(low, high))
    points = [*random.Random(0).sample(range(LAST + 1), 2000), low, high, max(low - 1, 0), min(high + 1, LAST)]
    for point in points:
        if not 0xD800 <= point <= 0xDFFF:
            code = chr(point).encode()
            fits = [
                len(s) == len(code) and all(a <= x <= b for (a, b), x in zip(s, code, strict=True)) for s in sequences
            ]
            assert sum(fits) == (low <= point <= high)


@pytest.mark.parametrize(
    "pattern", ["(a", "a)", "a**", "(?=a)", r"\b", "[b-a]", "a{3,2}", "^a", "[a", r"\q", "a{x}", "(a{999}){999}"]
)
def test_other_syntax_is_refused_with_its_place(pattern):
    with pytest.raises(ConfigError, match=r"^regex=.*: .* at \d+\. Write it without\.$|too large"):
        Automaton(pattern)


SCHEMA = {
    "type": "object",
    "properties": {
        "a": {"type": "integer"},
        "b": {"enum": ["x", 'y"']},
        "c": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
        "d": {"type": ["string", "null"], "maxLength": 2},
    },
    "required": ["b"],
}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ('{"b": "x"}', True),
        ('{"a": 1, "b": "x"}', True),
        ('{"a":-10,"b":"y\\"","c":[],"d":"é"}', True),
        ('{"b":"x","c":[true, false],"d":null}', True),
        ('{"a":1}', False),
        ('{"b":"z"}', False),
        ('{"b":"x","c":[true,true,true]}', False),
        ('{"b":"x","d":"abc"}', False),
        ('{"b":"x",}', False),
        ('{"a":01,"b":"x"}', False),
        ('{"b":"x","a":1}', False),
    ],
)
def test_texts_of_a_schema(text, fits):
    assert Automaton(schema_pattern(SCHEMA)).matches(text.encode()) == fits
    if fits:
        json.loads(text)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "number"}, -1.5e30),
        ({"const": {"a": [1, None]}}, {"a": [1, None]}),
        ({"anyOf": [{"type": "null"}, {"type": "array", "items": {"type": "integer"}, "minItems": 2}]}, [1, 2, 3]),
        ({"type": "string", "minLength": 1}, 'Grüße\n"\\'),
        ('{"type": "object", "properties": {}}', {}),
    ],
)
def test_values_that_python_writes_fit(schema, value):
    automaton = Automaton(schema_pattern(schema))
    assert automaton.matches(json.dumps(value).encode())
    assert not automaton.matches(json.dumps(value).encode() + b" ")
    assert not automaton.matches(json.dumps([value, "other"]).encode())


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        ("{", "not JSON"),
        ({"type": "date"}, "type='date' is not supported. Supported: integer"),
        ({"$ref": "#"}, r"\$ref is not supported here"),
        ({"type": "string", "pattern": "a"}, "pattern is not supported here. Supported: maxLength"),
        ({"type": "array"}, "an array without items"),
        ({"type": "object", "required": ["a"]}, r"required \['a'\] are not among"),
        ({"type": "object", "additionalProperties": True}, "additionalProperties is not supported"),
    ],
)
def test_other_keywords_are_refused(schema, sentence):
    with pytest.raises(ConfigError, match=sentence):
        schema_pattern(schema)
