"""Requests of the main port go to whichever worker is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from millpond.server.forward import Forward

Body = Callable[..., bytes]
INFER = "/v2/models/sum/infer"


def test_workers_take_turns_and_stand_in_for_each_other(
    server: Any, start: Callable[..., Any], infer_body: Body, tmp_path: Path
) -> None:
    other = start()

    async def ask() -> None:
        forward = Forward((server.socket, other.socket, tmp_path / "never.sock"), "The worker")
        transport = httpx.ASGITransport(forward)
        headers = {"x-millpond-user": "ann"}
        async with httpx.AsyncClient(transport=transport, base_url="http://main", headers=headers) as client:

            async def one() -> int:
                return (await client.post(INFER, content=infer_body(1))).status_code

            before = [each.traffic()["asked"] for each in (server, other)]
            assert [await one() for _ in range(12)] == [200] * 12
            after = [each.traffic()["asked"] for each in (server, other)]
            shares = [now - then for now, then in zip(after, before, strict=True)]
            assert sum(shares) == 12
            assert min(shares) >= 3
            told = await forward.fetch_all("/metrics")
            assert list(told) == [0, 1]
            other.process.kill()
            other.process.wait(10)
            statuses = [await one() for _ in range(12)]
            # A connection that was kept may have broken under the request, which is then not sent twice.
            assert statuses.count(200) >= 11
            assert await forward.fetch("/v2/health/ready") is not None
        await forward.close()

    asyncio.run(ask())
