"""The tests mirror the tree; `oracles` holds distributions whose answers are known exactly."""
