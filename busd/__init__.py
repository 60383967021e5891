"""busd: a message bus for one machine."""

__version__ = "0.1.0"
