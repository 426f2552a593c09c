"""From a study, or a whole space, to a recorded table."""
