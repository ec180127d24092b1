"""The main job on real flights, step by step: `headrace demo` runs run.py, which reads like its table of contents."""
