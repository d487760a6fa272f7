"""The mathematics of diffusion, pure: no network, no data, no device layout."""
