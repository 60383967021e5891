"""Vocabulary: requests, errors, topics, positions, settings. Pure."""
