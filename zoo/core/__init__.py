"""Layer 0, standard library only: registry, discovery, signatures, spaces, errors."""
