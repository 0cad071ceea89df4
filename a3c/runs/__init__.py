"""What a run leaves behind: folder, checkpoints, metrics, W&B record, pictures."""
