"""Sources of ticks, one module or folder each; they import only core, errors and the Feed protocol."""
