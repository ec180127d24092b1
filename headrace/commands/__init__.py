"""The commands, one a module. At the top a module imports Typer alone: `--help` reads all of them."""
