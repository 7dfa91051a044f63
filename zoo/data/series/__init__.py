"""Time series: own files, and processes of known law."""
