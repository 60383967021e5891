"""busd beside redis-server and nats-server: the same load for each, in turn, in one run.  `python -m bench --help`."""
