"""One run under Lightning."""
