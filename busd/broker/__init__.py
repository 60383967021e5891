"""Publish, subscribe, fan-out, reset. Knows the log and the outboxes by two small interfaces. Pure."""
