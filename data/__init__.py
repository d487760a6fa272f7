"""Where clips come from (sources) and the order in which a run sees them (pipeline)."""
