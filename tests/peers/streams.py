# SPDX-License-Identifier: MIT
"""Python's asyncio streams, as the other end of a test: streams.py client|server|proxy ..."""

import argparse
import asyncio
import os
import socket
import ssl
import struct
import sys

parser = argparse.ArgumentParser()
parser.add_argument("role", choices=("client", "server", "proxy"))
parser.add_argument("--port", type=int, default=0)
parser.add_argument("--unix")
parser.add_argument("--size", type=int, default=1 << 20)
parser.add_argument("--cafile")  # a client's, with TLS
parser.add_argument("--cert")  # a server's, with TLS
parser.add_argument("--key")
parser.add_argument("--upgrade", action="store_true")  # TLS begins after plain text
parser.add_argument("--proxy", type=int)  # a client's: TLS inside of the TLS with this one
parser.add_argument("--reset", action="store_true")  # ends what it has begun by a reset
arguments = parser.parse_args()


def say(text):
    print(text, flush=True)


def reset(writer):
    writer.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )
    writer.transport.abort()


async def client():
    context = ssl.create_default_context(cafile=arguments.cafile) if arguments.cafile else None
    plain = arguments.upgrade or context is None
    options = {} if plain else {"ssl": context, "server_hostname": "localhost"}
    if arguments.unix:
        reader, writer = await asyncio.open_unix_connection(arguments.unix, **options)
    elif arguments.proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", arguments.proxy, **options)
        writer.write(f"CONNECT 127.0.0.1:{arguments.port} HTTP/1.1\r\n\r\n".encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        await writer.start_tls(context, server_hostname="localhost")
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", arguments.port, **options)
    if arguments.upgrade:
        writer.write(b"STARTTLS\n")
        answer = await reader.readline()
        assert answer == b"go\n", answer
        await writer.start_tls(context, server_hostname="localhost")
    if arguments.reset:
        writer.write(b"x" * 10)
        await reader.readexactly(10)
        reset(writer)
        return say("reset")

    data = os.urandom(arguments.size)
    task = asyncio.create_task(reader.readexactly(len(data)))
    writer.write(data)
    await writer.drain()
    assert await task == data
    if writer.can_write_eof():
        writer.write_eof()
        assert await reader.read() == b""
    tls = writer.get_extra_info("ssl_object")
    version = tls.version() if tls else "plain"
    writer.close()
    await writer.wait_closed()
    say(f"right, {version}")


async def serve(reader, writer):
    try:
        if arguments.upgrade:
            assert await reader.readline() == b"STARTTLS\n"
            writer.write(b"go\n")
            await writer.drain()
            await writer.start_tls(server_context())
        count = 0
        while data := await reader.read(1 << 16):
            count += len(data)
            writer.write(data)
            await writer.drain()
            if arguments.reset:
                reset(writer)
                return say("reset")
        if writer.can_write_eof():
            writer.write_eof()
        writer.close()
        await writer.wait_closed()
        say(f"ended after {count}")
    except Exception as error:
        say(f"failed: {type(error).__name__}: {error}")
        writer.close()


async def pass_on(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


# An HTTPS proxy: the outer TLS ends here, and what is inside is passed on.
async def tunnel(reader, writer):
    try:
        request = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = request.split(b" ", 2)
        assert method == b"CONNECT", request
        host, port = target.decode().split(":")
        there_reader, there_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(pass_on(reader, there_writer), pass_on(there_reader, writer))
        await writer.wait_closed()
        say("tunnel closed")
    except Exception as error:
        say(f"failed: {type(error).__name__}: {error}")
        writer.close()


def server_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(arguments.cert, arguments.key)
    return context


async def server():
    context = server_context() if arguments.cert and not arguments.upgrade else None
    if arguments.unix:
        await asyncio.start_unix_server(serve, arguments.unix, ssl=context)
        say("listening")
    else:
        handler = tunnel if arguments.role == "proxy" else serve
        server = await asyncio.start_server(handler, "127.0.0.1", arguments.port, ssl=context)
        say(f"port {server.sockets[0].getsockname()[1]}")
    # Until the test ends its input.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(client() if arguments.role == "client" else server())
