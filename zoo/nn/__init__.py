"""Networks, likelihoods, penalties and samplers' maths: torch only, usable without the rest of the zoo."""
