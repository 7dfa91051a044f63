"""Executes one program, read from standard input, within limits: the child process of `zoo.evaluation.execution`.

It imports the standard library alone, so that it starts quickly. The first line of the input is a word that the
report begins with: a program that ends the process early, or writes to the pipe, does not pass.
"""

import os
import sys


def limit(name: str, most: int) -> None:
    """Lower a limit of this process and of those that it starts: "CPU" for `RLIMIT_CPU`."""
    import resource  # which Windows lacks

    kind = getattr(resource, f"RLIMIT_{name}")
    hard = resource.getrlimit(kind)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def outcome(source: str) -> str:
    """Execute a program: passed, wrong (a failed assertion), error, syntax_error or out_of_memory."""
    try:
        code = compile(source, "program", "exec")
    except MemoryError:
        return "out_of_memory"
    except (SyntaxError, ValueError, RecursionError):  # ValueError: null characters
        return "syntax_error"
    try:
        exec(code, {"__name__": "__main__"})
    except AssertionError:
        return "wrong"
    except MemoryError:
        return "out_of_memory"
    except BaseException:  # an exit is not a pass
        return "error"
    return "passed"


def main() -> None:
    """Set the limits, execute the program, and report.

    Arguments: descriptor of the report, seconds of processor time, bytes of memory, bytes of a file, open files.
    """
    pipe, seconds, memory, size, files = map(int, sys.argv[1:])
    word, source = sys.stdin.readline().strip(), sys.stdin.read()
    limits = {"CPU": seconds, "AS": memory, "FSIZE": size, "NOFILE": files, "CORE": 0}
    limits["NPROC"] = 0  # without effect for root
    for name, most in limits.items():
        limit(name, most)
    found = outcome(source)
    os.write(pipe, f"{word} {found}".encode())
    os._exit(0)  # threads and exit handlers of the program do not run


if __name__ == "__main__":
    main()
