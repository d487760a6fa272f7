"""Guidance: everything here maps a denoiser to a denoiser, so no sampler knows of it."""
