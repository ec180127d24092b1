"""From the files that declare to what is applied: load, compare, apply, follow."""
