"""Video diffusion in JAX: one network, many objectives, honest comparisons."""
