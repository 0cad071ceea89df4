"""What learners that make each update together agree on; one that is alone agrees with itself at once."""
