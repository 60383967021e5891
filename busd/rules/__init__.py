"""Formats and state machines: bytes in, decisions out. Pure."""
