"""An OpenAI-compatible server that says the same after a fixed time: `python -m benchmarks._slow_server SECONDS`.

On loopback, at a port that it prints. It answers as many at once as are asked and keeps connections open, as a model
server does, and reads no more of a request than its length.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Final

_REPLY: Final = "Harmful request: yes\nResponse refusal: no\nHarmful response: yes"


async def serve(latency: float) -> None:
    """Answers until it is ended."""
    text = {"index": 0, "finish_reason": "stop", "text": _REPLY, "message": {"role": "assistant", "content": _REPLY}}
    body = json.dumps({"id": "x", "choices": [text], "usage": {"prompt_tokens": 300, "completion_tokens": 20}}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request = (await reader.readuntil(b"\r\n\r\n")).lower()
                size = int(request.partition(b"content-length:")[2].partition(b"\r\n")[0])
                await reader.readexactly(size)
                await asyncio.sleep(latency)
                writer.write(head + body)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
