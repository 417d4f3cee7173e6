"""The admin listener: metrics, health, sessions."""
