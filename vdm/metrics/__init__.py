"""Numbers that judge clips, each with the protocol under which it was taken."""
