// SPDX-License-Identifier: MIT
// All of asyncio.
#pragma once

#include <asyncio/address.hpp>
#include <asyncio/as_completed.hpp>
#include <asyncio/as_result.hpp>
#include <asyncio/concurrent_futures.hpp>
#include <asyncio/connections.hpp>
#include <asyncio/contextvars.hpp>
#include <asyncio/coroutine.hpp>
#include <asyncio/datagrams.hpp>
#include <asyncio/dns.hpp>
#include <asyncio/ensure_future.hpp>
#include <asyncio/events.hpp>
#include <asyncio/exception_groups.hpp>
#include <asyncio/exceptions.hpp>
#include <asyncio/extra_info.hpp>
#include <asyncio/futures.hpp>
#include <asyncio/gather.hpp>
#include <asyncio/generators.hpp>
#include <asyncio/graph.hpp>
#include <asyncio/locks.hpp>
#include <asyncio/protocols.hpp>
#include <asyncio/queues.hpp>
#include <asyncio/result.hpp>
#include <asyncio/runners.hpp>
#include <asyncio/server.hpp>
#include <asyncio/shield.hpp>
#include <asyncio/sleep.hpp>
#include <asyncio/sockets.hpp>
#include <asyncio/streams.hpp>
#include <asyncio/taskgroups.hpp>
#include <asyncio/tasks.hpp>
#include <asyncio/timeouts.hpp>
#include <asyncio/transports.hpp>
#include <asyncio/try_finally.hpp>
#include <asyncio/wait.hpp>
