"""Collection of rollouts: collectors, the processes around them, and the dataset they feed."""
