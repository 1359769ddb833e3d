"""A process on a Unix socket that says what it was sent: stands where the serving worker will. `SOCKET [DELAY]`."""

from __future__ import annotations

import asyncio
import sys
import time

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

events: list[str] = []


async def echo(request):
    size = 0
    first = time.time()
    async for chunk in request.stream():
        size += len(chunk)
    seen = {"path": request.scope["raw_path"].decode(), "query": request.url.query, "size": size}
    return JSONResponse({**seen, "method": request.method, "first": first, "headers": dict(request.headers)})


async def arrival(request):
    """Answers, once the body ends, when its pieces came."""
    times = [time.time() async for chunk in request.stream() if chunk]
    return JSONResponse({"times": times})


async def slowly(request):
    async def pieces():
        for number in range(5):
            yield f"{number}\n"
            await asyncio.sleep(0.2)

    return StreamingResponse(pieces(), media_type="text/plain")


async def hang(request):
    events.append("began")
    try:
        while not await request.is_disconnected():
            await asyncio.sleep(0.02)
        events.append("client gone")
    finally:
        events.append("ended")
    return PlainTextResponse("never read")


async def too_large(request):
    return JSONResponse({"error": "too large"}, 413, {"connection": "close"})


async def ready(request):
    return JSONResponse({"ready": True})


async def metrics(request):
    return PlainTextResponse("# TYPE millpond_predictions_total counter\nmillpond_predictions_total 7\n")


async def told(request):
    return JSONResponse(events)


ALL = ["GET", "POST", "PUT", "DELETE", "HEAD"]
app = Starlette(
    routes=[
        Route("/v2/health/live", ready),
        Route("/v2/health/ready", ready),
        Route("/v2/arrival", arrival, methods=ALL),
        Route("/v2/slowly", slowly),
        Route("/v2/hang", hang, methods=ALL),
        Route("/v2/too-large", too_large, methods=ALL),
        Route("/v2/events", told),
        Route("/metrics", metrics),
        Route("/v2/{path:path}", echo, methods=ALL),
    ]
)

if __name__ == "__main__":
    uvicorn.run(app, uds=sys.argv[1], log_level="info")
