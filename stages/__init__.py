"""One module per step of the recipe: read inputs, call the library, write outputs."""
