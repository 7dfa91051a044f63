"""Layer 5: loading, export and other libraries' formats."""
