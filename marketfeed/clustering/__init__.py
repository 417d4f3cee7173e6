"""A node of a cluster: tasks that connect leases, tees and mirrors with NATS and with lives of the engine."""
