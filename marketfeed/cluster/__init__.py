"""Several engines as one: nodes of a cluster on NATS."""
