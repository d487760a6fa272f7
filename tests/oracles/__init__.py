"""Distributions whose answers are known exactly."""
