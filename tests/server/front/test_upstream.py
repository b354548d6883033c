"""What the front makes of a SuperLink that fails."""

import asyncio
from types import SimpleNamespace

import httpx
import pytest

from esn_server.front.upstream import Upstream


@pytest.mark.parametrize(("status", "passed_on"), [(200, 200), (403, 403), (500, 503)])
def test_a_superlink_that_fails_at_a_call_is_asked_again(status, passed_on):
    """Of a 500 (its database was locked) a SuperNode ends, and its site stays away."""

    def answer(_request):
        return httpx.Response(status, content=b"words")

    upstream = object.__new__(Upstream)
    upstream._base, upstream._proof, upstream._health = "https://127.0.0.1:1", "proof", (0.0, False)
    request = SimpleNamespace(target=b"/v1/fleet/pull-messages", forwarded=[])

    async def call():
        upstream._client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        async with upstream:
            return await upstream.call(request, b"")

    assert asyncio.run(call())[0] == passed_on
