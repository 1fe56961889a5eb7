"""The one training loop, its schedules, checkpoints, LR finder and stopping rule."""
