"""The fan-out: who gets which ticks when, encoded once. Pure but for the shard's loop."""
