"""Check whether text parses as Python."""

import ast
import warnings


def parses(text: str) -> bool:
    """Does this Python's parser accept a text as a module? None is executed; what nests too deeply does not parse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as an invalid escape, which parses
        try:
            ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # ValueError: nulls, lone surrogates
            return False
    return True
