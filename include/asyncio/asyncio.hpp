// SPDX-License-Identifier: MIT
// All of asyncio.
#pragma once

#include <asyncio/as_result.hpp>
#include <asyncio/contextvars.hpp>
#include <asyncio/coroutine.hpp>
#include <asyncio/events.hpp>
#include <asyncio/exceptions.hpp>
#include <asyncio/futures.hpp>
#include <asyncio/gather.hpp>
#include <asyncio/result.hpp>
#include <asyncio/runners.hpp>
#include <asyncio/sleep.hpp>
#include <asyncio/tasks.hpp>
#include <asyncio/try_finally.hpp>
