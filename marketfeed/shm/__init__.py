"""Shared memory for processes of users: the tap, and a reader that follows the rings."""
