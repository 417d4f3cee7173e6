"""Several machines: an origin numbers the ticks of a shard, and all other nodes mirror its rings."""
