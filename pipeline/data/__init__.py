"""Sources, ingest and its ledger, the one decoder, datasets and augmentation."""
