"""Classical statistical models of sequences."""
