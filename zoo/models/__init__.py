"""One file per family: the objective from top to bottom."""
