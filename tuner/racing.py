"""When the questions seen so far are enough to stop a config."""
