"""The core of diffusion and flow matching: paths, targets, weightings, times, samplers, guidance, likelihoods."""
