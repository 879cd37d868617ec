// SPDX-License-Identifier: MIT
#include <asyncio/exceptions.hpp>

ASYNCIO_BEGIN_NAMESPACE

// Everything is defined here, so that each class has one type_info, in the library.

CancelledError::CancelledError() : text_("") {}
CancelledError::CancelledError(const std::string& message) : text_(message) {}
CancelledError::CancelledError(const CancelledError&) noexcept = default;
CancelledError& CancelledError::operator=(const CancelledError&) noexcept = default;
CancelledError::~CancelledError() = default;
const char* CancelledError::what() const noexcept {
    const char* text = text_.what();
    return *text != '\0' ? text : "CancelledError";
}

KeyboardInterrupt::KeyboardInterrupt() noexcept = default;
KeyboardInterrupt::KeyboardInterrupt(const KeyboardInterrupt&) noexcept = default;
KeyboardInterrupt& KeyboardInterrupt::operator=(const KeyboardInterrupt&) noexcept = default;
KeyboardInterrupt::~KeyboardInterrupt() = default;
const char* KeyboardInterrupt::what() const noexcept { return "KeyboardInterrupt"; }

SystemExit::SystemExit(int code) noexcept : code_(code) {}
SystemExit::SystemExit(const SystemExit&) noexcept = default;
SystemExit& SystemExit::operator=(const SystemExit&) noexcept = default;
SystemExit::~SystemExit() = default;
const char* SystemExit::what() const noexcept { return "SystemExit"; }

RuntimeError::RuntimeError(const RuntimeError&) noexcept = default;
RuntimeError& RuntimeError::operator=(const RuntimeError&) noexcept = default;
RuntimeError::~RuntimeError() = default;

DeadlockError::DeadlockError(const DeadlockError&) noexcept = default;
DeadlockError& DeadlockError::operator=(const DeadlockError&) noexcept = default;
DeadlockError::~DeadlockError() = default;

ValueError::ValueError(const ValueError&) noexcept = default;
ValueError& ValueError::operator=(const ValueError&) noexcept = default;
ValueError::~ValueError() = default;

InvalidStateError::InvalidStateError(const InvalidStateError&) noexcept = default;
InvalidStateError& InvalidStateError::operator=(const InvalidStateError&) noexcept = default;
InvalidStateError::~InvalidStateError() = default;

TimeoutError::TimeoutError() : std::runtime_error("the time is up") {}
TimeoutError::TimeoutError(const TimeoutError&) noexcept = default;
TimeoutError& TimeoutError::operator=(const TimeoutError&) noexcept = default;
TimeoutError::~TimeoutError() = default;

ASYNCIO_END_NAMESPACE
