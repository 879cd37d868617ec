# SPDX-License-Identifier: MIT
"""The servers on CPython's asyncio; with --uvloop before the mode, on uvloop's loop.

The modes are those of ../load.cpp, each written as the manual has it.
"""
import asyncio
import socket
import ssl
import sys

MODES = "streams sockets protocols sink source tls tls_sink tls_source udp"
ROOM = 64 * 1024
SINK_UNIT = 16 * 1024 * 1024
BLOCK = bytes(range(256)) * (ROOM // 256)


async def echo(reader, writer):
    while data := await reader.read(ROOM):
        writer.write(data)
        await writer.drain()


async def sink(reader, writer):
    received = 0
    while data := await reader.read(ROOM):
        received += len(data)
        if received >= SINK_UNIT:
            received -= SINK_UNIT
            writer.write(b".")
            await writer.drain()


async def source(reader, writer):
    while True:
        writer.write(BLOCK)
        await writer.drain()


def handler(serve):
    async def handle(reader, writer):
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    return handle


async def streams(mode, certificate):
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    serve = sink if mode.endswith("sink") else source if mode.endswith("source") else echo
    server = await asyncio.start_server(
        handler(serve), "127.0.0.1", 0, ssl=context, backlog=1024
    )
    print_port(server.sockets[0])
    await server.serve_forever()


async def echo_by_socket(loop, connection):
    with connection:
        try:
            while data := await loop.sock_recv(connection, ROOM):
                await loop.sock_sendall(connection, data)
        except ConnectionError:
            pass


async def sockets():
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)
    print_port(listener)
    tasks = set()
    while True:
        connection, _ = await loop.sock_accept(listener)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = loop.create_task(echo_by_socket(loop, connection))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)

    # The peer does not read: neither do we.
    def pause_writing(self):
        self.transport.pause_reading()

    def resume_writing(self):
        self.transport.resume_reading()


async def protocols():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=1024)
    print_port(server.sockets[0])
    await server.serve_forever()


class EchoDatagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.transport.sendto(data, address)


async def datagrams():
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        EchoDatagrams, local_addr=("127.0.0.1", 0)
    )
    print_port(transport.get_extra_info("socket"))
    await loop.create_future()


def print_port(listener):
    print(listener.getsockname()[1], flush=True)


def main():
    words = sys.argv[1:]
    run = asyncio.run
    if words[0] == "--uvloop":
        import uvloop

        run = uvloop.run
        words = words[1:]
    if words == ["--modes"]:
        print(MODES)
    elif words[0] == "udp":
        run(datagrams())
    elif words[0] == "sockets":
        run(sockets())
    elif words[0] == "protocols":
        run(protocols())
    else:
        run(streams(words[0], words[1] if len(words) > 1 else None))


main()
