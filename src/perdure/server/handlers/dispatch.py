"""One call from request bytes to reply bytes: parsed, handled here, or passed on to the node that owns what it touches.

No RPC says where it has to run. Its handler begins here, and the first workflow that it touches and this node does not
own ends that with `Elsewhere`, before anything was changed; then the request goes to the owner as it came, one hop and
no further. So every RPC of a front end is one for the whole cluster, and a bad request is refused where it arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from perdure.server.core.errors import Unimplemented
from perdure.server.engine import handed_out
from perdure.server.engine.client_software import UNKNOWN, ClientSoftware
from perdure.server.engine.cluster.link import Late
from perdure.server.engine.cluster.ownership import Elsewhere
from perdure.server.engine.cluster.services import RPC, Asked
from perdure.server.engine.visits import give_back_tokens
from perdure.server.handlers.call import Call, DirectCall
from perdure.server.handlers.registry import Method
from perdure.server.handlers.server import Server

_READS: Final = ("Get", "Describe", "List", "Count", "Query")
"""How the names of RPCs begin that change nothing: they may be made again where nobody knows whether they were."""
_HAND_OUT: Final[Mapping[str, Callable[[bytes], list[bytes]]]] = {
    "StartWorkflowExecution": handed_out.of_start,
    "RespondWorkflowTaskCompleted": handed_out.of_completion,
}
"""RPCs whose replies may hold tasks, and how to find them."""


class _Forwarded(msgspec.Struct, array_like=True):
    """A request on its way to the owner of what it touches."""

    path: str
    request: bytes


_encode: Final = msgspec.msgpack.Encoder().encode
_forwarded: Final = msgspec.msgpack.Decoder(_Forwarded)


class Owners(Protocol):
    """How to have the owner of a shard answer; see `engine/cluster/forwarding.py`."""

    async def ask_owner(
        self,
        shard: int,
        service: str,
        body: bytes,
        *,
        deadline: float | None = None,
        client: ClientSoftware = UNKNOWN,
        is_repeatable: bool = True,
        late: Late | None = None,
    ) -> bytes | None:
        """Return the owner's answer; None where this node has come to own the shard."""


class Dispatcher:
    """Answers calls, whatever carried them.

    Args:
        server: What the handlers work with.
        methods: What is served.
        owners: The other nodes; None where there are none.
    """

    def __init__(self, server: Server, methods: Sequence[Method], owners: Owners | None = None) -> None:
        self._server = server
        self._owners = owners
        self._by_path = {method.path: method for method in methods}

    async def serve(self, method: Method, request: bytes, call: Call) -> bytes:
        """Answer a call, here or at its owner. Raises ServerError, and DecodeError for a request that is none."""
        while True:
            try:
                return await self._serve_here(method, request, call)
            except Elsewhere as elsewhere:
                if self._owners is None:
                    raise
                reply = await self._pass_on(self._owners, elsewhere.shard, method, request, call)
            if reply is not None:
                return reply

    async def serve_forwarded(self, asked: Asked) -> bytes:
        """Answer a call that another node took in. Raises Elsewhere where this node does not own what it touches."""
        forwarded = _forwarded.decode(asked.body)
        method = self._by_path.get(forwarded.path)
        if method is None:
            raise Unimplemented(f"this node does not know {forwarded.path}: it may run an older release")
        call = DirectCall(asked.deadline, asked.client)
        return await self._serve_here(method, forwarded.request, call)

    async def _serve_here(self, method: Method, request: bytes, call: Call) -> bytes:
        reply = await method.handler(self._server, method.request_class.FromString(request), call)
        return reply if isinstance(reply, bytes) else reply.SerializeToString()

    async def _pass_on(self, owners: Owners, shard: int, method: Method, request: bytes, call: Call) -> bytes | None:
        return await owners.ask_owner(
            shard,
            RPC,
            _encode(_Forwarded(method.path, request)),
            deadline=call.deadline,
            client=call.client,
            is_repeatable=method.name.startswith(_READS),
            late=_taking_back(method),
        )


def _taking_back(method: Method) -> Late | None:
    """Return what takes back the tasks in a reply whose caller has gone; None where no reply has any."""
    find_tokens = _HAND_OUT.get(method.name)
    if find_tokens is None:
        return None
    return lambda link, reply: give_back_tokens(link, find_tokens(reply))
