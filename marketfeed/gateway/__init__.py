"""What subscribers connect to: listener, WebSocket sessions, the outbox, limits."""
