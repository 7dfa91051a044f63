"""`python -m zoo` is the `zoo` command."""

import sys


def main() -> None:
    """Run the `zoo` command; an interrupt while its modules are imported has no traceback, too."""
    try:
        from zoo.cli.main import main as run
    except KeyboardInterrupt:
        print("zoo: stopped.", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
