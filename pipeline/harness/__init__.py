"""What runs a stage: settings, identity, lock, publication, and how DVC, Hydra and MLflow are told."""
