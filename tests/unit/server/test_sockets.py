"""The platform's one port."""

import asyncio
import socket

from millpond.server.sockets import listen


def test_answers_are_sent_at_once():
    """A connection that waits for acknowledgements before it sends the rest of an answer costs 40 ms each."""
    told = []

    async def run():
        async def serve(_reader, writer):
            accepted = writer.get_extra_info("socket")
            told.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        server = await asyncio.start_server(serve, sock=listen("127.0.0.1", 0))
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        while not told:
            await asyncio.sleep(0.01)
        writer.close()
        server.close()

    asyncio.run(run())
    assert told[0]
