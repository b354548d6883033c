"""Free ports: nobody else gets one by chance before its server listens."""

import contextlib
import socket

from esn_core.system.loopback import free_port, is_free


def test_a_port_is_given_to_nobody_else_before_its_server_listens():
    given = {free_port() for _ in range(200)}
    assert len(given) == 200
    # The system has some 14,000 ports for each of these kinds: 2,000 draws would meet 28 of the 200.
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=16))
        for _ in range(2000):
            with socket.socket() as asked:
                asked.bind(("127.0.0.1", 0))
                assert asked.getsockname()[1] not in given
            with socket.create_connection(server.getsockname()) as caller:
                assert caller.getsockname()[1] not in given
                server.accept()[0].close()


def test_a_server_that_asks_for_its_port_gets_it():
    port = free_port()
    assert is_free(port)
    with socket.create_server(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
        assert not is_free(port)
    assert free_port() != port
