"""What scripts/scaling.py is made of: a model of throughput and lag, and what it is made from and compared with."""
