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

IncompleteReadError::IncompleteReadError(std::string partial, std::optional<std::size_t> expected)
    : std::runtime_error(std::to_string(partial.size()) + " bytes read on a total of " +
                         (expected.has_value() ? std::to_string(*expected) : "undefined") +
                         " expected bytes: the peer ended before"),
      partial_(std::make_shared<const std::string>(std::move(partial))), expected_(expected) {}
IncompleteReadError::IncompleteReadError(const IncompleteReadError&) noexcept = default;
IncompleteReadError& IncompleteReadError::operator=(const IncompleteReadError&) noexcept = default;
IncompleteReadError::~IncompleteReadError() = default;

LimitOverrunError::LimitOverrunError(const std::string& message, std::size_t consumed)
    : std::runtime_error(message), consumed_(consumed) {}
LimitOverrunError::LimitOverrunError(const LimitOverrunError&) noexcept = default;
LimitOverrunError& LimitOverrunError::operator=(const LimitOverrunError&) noexcept = default;
LimitOverrunError::~LimitOverrunError() = default;

ASYNCIO_END_NAMESPACE
