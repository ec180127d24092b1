"""What each command does once its options are read; `headrace/commands/` has the options."""
