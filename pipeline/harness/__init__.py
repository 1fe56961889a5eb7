"""What runs a stage: settings, identity, lock, publication, and the ties to DVC, Hydra and MLflow."""
