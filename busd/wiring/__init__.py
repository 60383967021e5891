"""Command line and start-up: the only place where the parts meet."""
