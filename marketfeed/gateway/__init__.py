"""The server that subscribers connect to: listener, HTTP, sessions, the outbox, limits."""
