"""Disk, threads, sockets."""
