"""Worker processes: started, told, watched and replaced by the engine."""
