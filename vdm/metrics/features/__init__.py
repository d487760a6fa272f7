"""Networks whose features metrics compare: plain functions of their weights, which are read from files and checked."""
