"""Layer 8: the command line, one file for each verb."""
