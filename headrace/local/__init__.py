"""Kafka and Redis on this machine: real ones, without Docker and without root."""
