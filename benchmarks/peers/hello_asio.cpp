// SPDX-License-Identifier: MIT
//
// hello.cpp on standalone Asio: what it takes to compile, and how large it is.
#include <asio.hpp>
#include <cstdio>

asio::awaitable<void> async_main() {
    std::puts("Hello");
    co_await asio::post(asio::use_awaitable);
    std::puts("World");
}

int main() {
    asio::io_context context(1);
    asio::co_spawn(context, async_main(), asio::detached);
    context.run();
}
