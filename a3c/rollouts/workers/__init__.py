"""Worker processes: where a researcher need not go."""
