"""The VNC port of `carrel watch --vnc` knows whose viewer it is."""

from __future__ import annotations

import os
import socket

import pytest

from controller.cli.screen import owner_of


def test_the_owner_of_a_loopback_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            accepted, peer = server.accept()
            with accepted:
                assert owner_of(peer, accepted.getsockname()) == os.getuid() == client_uid(client)
        assert owner_of(("127.0.0.1", 1), server.getsockname()) is None


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_users_connection_is_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        child = os.fork()
        if child == 0:
            os.setuid(65534)
            with socket.create_connection(server.getsockname()) as client:
                client.recv(1)
            os._exit(0)
        accepted, peer = server.accept()
        with accepted:
            assert owner_of(peer, accepted.getsockname()) == 65534
        os.waitpid(child, 0)


def client_uid(client: socket.socket) -> int:
    return os.fstat(client.fileno()).st_uid
