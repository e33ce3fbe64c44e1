"""Which namespace a task token may be used in. Must never be asked to trust what a token says about its task."""

from __future__ import annotations

from perdure.server.core.errors import InvalidArgument
from perdure.server.handlers.server import Server


def check_token_set(server: Server, task_token: bytes, namespace: str) -> None:
    """Refuse a request of an unknown namespace, which SDKs have an error of their own for, or without a task token."""
    if namespace:
        server.namespaces.resolve(namespace)
    if not task_token:
        raise InvalidArgument("Task token not set on request.")


def check_token_namespace(server: Server, namespace_id: str, namespace: str) -> None:
    """Refuse a token of another namespace than the request's. A request may leave its namespace empty.

    Raises:
        InvalidArgument: The two differ.
        NotFound: There is no such namespace.
    """
    if not namespace:
        server.namespaces.resolve(server.namespaces.by_id(namespace_id).name)
        return
    if server.namespaces.resolve(namespace).namespace_id != namespace_id:
        raise InvalidArgument("Operation requested with a token from a different namespace.")
