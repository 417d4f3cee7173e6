"""Serving of sessions in one process: shard, gateway, statistics, self-probes, the tap's listener."""
