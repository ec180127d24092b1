"""The front door: the command line, plan and apply, the wiring of the parts, local Kafka and Redis."""
