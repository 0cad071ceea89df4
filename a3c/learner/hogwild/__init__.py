"""Workers that learn by themselves, on shared weights without a lock."""
