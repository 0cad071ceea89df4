"""One policy, looked at: played, scored, filmed."""
