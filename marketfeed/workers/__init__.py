"""Worker processes: started, controlled, watched and replaced by the engine."""
