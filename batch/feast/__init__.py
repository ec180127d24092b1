"""Feast's offline store over Iceberg. Importing it takes seconds: nothing outside does so before it must."""
