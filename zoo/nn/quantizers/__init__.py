"""Quantisers: vectors -> entries of a finite codebook."""
