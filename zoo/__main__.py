"""`python -m zoo` is the `zoo` command."""

from zoo.cli.main import main

if __name__ == "__main__":
    main()
