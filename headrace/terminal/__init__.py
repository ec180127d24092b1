"""What a person sees: results, tables, progress, and how a command is stopped."""
