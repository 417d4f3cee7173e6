"""Alerts: rules over the rings, a durable log, and delivery to consumers that acknowledge."""
