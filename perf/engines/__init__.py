"""Other engines that serve the same subscriptions, for perf/peers.py."""
