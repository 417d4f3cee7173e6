"""What is done with recordings: written from a live engine, and run through tiers on a virtual clock."""
