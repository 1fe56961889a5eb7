"""How the backbones that ship with the repository are made: trained on glyphs drawn here."""
