"""`python -m headrace`."""

from headrace.cli import app

if __name__ == "__main__":
    app(prog_name="headrace")
