"""Redis -> models: the HTTP server, its client, Feast's online store.

`from serving import Client` costs nothing that a model's process has not got; the server is in `serving.server`.
"""

from serving.client import AsyncClient, Client, Features

__all__ = ["AsyncClient", "Client", "Features"]
