"""Makes the backbone weights that ship with the repository: pretraining on glyphs rendered here."""
