"""Check whether text parses as Python."""

import ast
import warnings


def parses(text: str) -> bool:
    """Whether this Python's parser accepts a text as a module, without executing it; too deep nesting counts as no."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as an invalid escape, which parses
        try:
            ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # ValueError: nulls, lone surrogates
            return False
    return True
