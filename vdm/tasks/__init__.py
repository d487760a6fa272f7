"""Which frames of a clip are given and which are wanted."""
