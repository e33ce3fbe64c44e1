"""How two nodes that open a stream find out that each is who it says: by their sessions, which nobody says aloud.

Each node has a session, which only the members can read, in the database. A node proves that it has its own by a code
over what both have just said, fresh nonces among it: so nobody learns a session by answering at the address of a
member, and a proof that was overheard proves nothing another time. The proof says nothing of what comes later on the
stream: the network between the nodes is to be trusted not to change it.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final

import msgspec

from perdure.server.engine.cluster.frames import (
    FRAME_BYTES_MAX,
    PROTOCOL,
    BadFrame,
    Frame,
    FrameReader,
    Hello,
    Proof,
    encode_frame,
)
from perdure.server.engine.cluster.stream import ByteStream

GREETING_BYTES_MAX: Final = 4096
"""What a frame of somebody may have at most who has not proved yet to be a member."""


class Refused(Exception):
    """The other side is no member, as far as this node knows."""


class Greeter:
    """Introduces one node, and has others introduce themselves.

    Args:
        node: This node.
        release: The release it runs.
        new_nonce: Makes strings that nobody can guess.
        own_session: This node's session; a new one may begin.
        session_of: The session of another member; None where there is no such member.
    """

    def __init__(
        self,
        node: str,
        release: str,
        new_nonce: Callable[[], str],
        own_session: Callable[[], str],
        session_of: Callable[[str], str | None],
    ) -> None:
        self.node: Final = node
        self._release = release
        self._new_nonce = new_nonce
        self._own_session = own_session
        self._session_of = session_of

    async def dial(self, stream: ByteStream, peer: str) -> FrameReader:
        """Greet at a stream that this node has opened, and prove first.

        Args:
            stream: The stream.
            peer: Who should be there.

        Returns:
            What reads the rest of the stream.

        Raises:
            Refused: Somebody else is there.
            BadFrame, OSError: The stream is no good.
        """
        reader = FrameReader(GREETING_BYTES_MAX)
        mine = self._hello()
        await stream.write(encode_frame(mine))
        theirs = await _hello_from(stream, reader)
        if theirs.node != peer:
            raise Refused(f"node {theirs.node} answers at the address of node {peer}")
        await stream.write(encode_frame(self._proof(mine, theirs)))
        await self._require_proof(stream, reader, mine, theirs)
        return reader

    async def answer(self, stream: ByteStream) -> tuple[str, FrameReader]:
        """Greet at a stream that another node has opened; return its name, and the rest as `dial` does."""
        reader = FrameReader(GREETING_BYTES_MAX)
        theirs = await _hello_from(stream, reader)
        mine = self._hello()
        await stream.write(encode_frame(mine))
        await self._require_proof(stream, reader, mine, theirs)
        await stream.write(encode_frame(self._proof(mine, theirs)))
        return theirs.node, reader

    def _hello(self) -> Hello:
        return Hello(self.node, PROTOCOL, self._release, self._new_nonce())

    def _proof(self, mine: Hello, theirs: Hello) -> Proof:
        return Proof(_code(self._own_session(), mine, theirs))

    async def _require_proof(self, stream: ByteStream, reader: FrameReader, mine: Hello, theirs: Hello) -> None:
        proof = await _next_from(stream, reader)
        if not isinstance(proof, Proof):
            raise BadFrame("a node did not prove who it is")
        session = self._session_of(theirs.node)
        if not session or not hmac.compare_digest(proof.code, _code(session, theirs, mine)):
            raise Refused(f"somebody who says to be node {theirs.node} is no member")
        reader.bytes_max = FRAME_BYTES_MAX


def _code(session: str, prover: Hello, other: Hello) -> bytes:
    """Return what proves to the other that the prover has that session."""
    said = msgspec.msgpack.encode((prover.node, other.node, prover.nonce, other.nonce))
    return hmac.digest(session.encode(), said, "sha256")


async def _hello_from(stream: ByteStream, reader: FrameReader) -> Hello:
    hello = await _next_from(stream, reader)
    if not isinstance(hello, Hello):
        raise BadFrame("a node did not say who it is")
    if hello.protocol != PROTOCOL:
        raise Refused(f"node {hello.node} speaks protocol {hello.protocol}, this one {PROTOCOL}")
    return hello


async def _next_from(stream: ByteStream, reader: FrameReader) -> Frame:
    while (frame := reader.next()) is None:
        data = await stream.read()
        if data is None:
            raise OSError("the stream ended before both sides knew each other")
        reader.take(data)
    return frame
