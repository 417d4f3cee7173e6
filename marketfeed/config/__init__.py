"""Configuration: its keys, how they are validated, and what a reload may change."""
