"""The fault campaign: runs that are killed at random moments, and what came out of them."""
