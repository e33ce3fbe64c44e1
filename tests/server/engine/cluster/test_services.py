"""What a node is told of a call that another one took in."""

from __future__ import annotations

import pytest

from perdure.server.engine.client_software import UNKNOWN, ClientSoftware
from perdure.server.engine.cluster.frames import Call, FrameReader, encode_frame
from perdure.server.engine.cluster.services import Asked, NodeServices


@pytest.mark.parametrize("client", [ClientSoftware("temporal-go", "1.2.3", "follows-next-run-id"), UNKNOWN])
@pytest.mark.parametrize("seconds", [None, 5.0])
async def test_it_knows_the_software_of_the_caller(client: ClientSoftware, seconds: float | None) -> None:
    seen: list[ClientSoftware] = []

    async def service(asked: Asked) -> bytes:
        seen.append(asked.client)
        return b"answer"

    services = NodeServices()
    services.offer("s", service)
    [call] = FrameReader().feed(encode_frame(Call(1, "s", b"", seconds, *client)))
    assert isinstance(call, Call)
    assert await services.answer("peer", call) == b"answer"
    assert seen == [client]
