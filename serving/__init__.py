"""Redis -> models: the server, its client, Feast's online store.

`from serving import Client` costs nothing that a model's process has not got, and is imported when it is asked for: the
server and `headrace get` need no HTTP client. The server is in `serving.server`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.client import AsyncClient, Client, Features

__all__ = ["AsyncClient", "Client", "Features"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from serving import client  # noqa: PLC0415 (see above)

    return getattr(client, name)
