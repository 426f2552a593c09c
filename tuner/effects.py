"""Which knobs matter, and what each does to every objective."""
