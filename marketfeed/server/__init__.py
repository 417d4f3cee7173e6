"""Everything that serves sessions in one process, over rings that somebody else writes."""
