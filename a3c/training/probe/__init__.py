"""How return estimators differ on the batches that one of them trains with."""
