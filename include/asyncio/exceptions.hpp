// SPDX-License-Identifier: MIT
// The exceptions of asyncio, under Python's names.
//
// CancelledError, KeyboardInterrupt and SystemExit stand outside std::exception, as they stand
// outside Exception in Python: `catch (const std::exception&)` lets them pass. Swallow a
// CancelledError only if you know why; rethrow it after cleaning up.
#pragma once

#include <asyncio/detail/config.hpp>

#include <cstddef>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

ASYNCIO_BEGIN_NAMESPACE

// The task was cancelled. Thrown at the await where the task stood. (asyncio.CancelledError)
class ASYNCIO_API CancelledError final {
  public:
    CancelledError();
    explicit CancelledError(const std::string& message);
    CancelledError(const CancelledError&) noexcept;
    CancelledError& operator=(const CancelledError&) noexcept;
    ~CancelledError();

    // What was given to cancel(); empty if nothing was.
    const char* message() const noexcept { return text_.what(); }
    // The message, or "CancelledError" if there is none.
    const char* what() const noexcept;

  private:
    std::runtime_error text_; // a string whose copies cannot throw
};

// Control-C. Thrown by run() and Runner::run() when the first Control-C has cancelled main and all
// is cleaned up; caught by nobody, it ends the process as SIGINT does (see runners.hpp). Thrown by
// a callback or a task of yours, it leaves run_forever() at once, and run() after the clean-up.
// (KeyboardInterrupt)
class ASYNCIO_API KeyboardInterrupt final {
  public:
    KeyboardInterrupt() noexcept;
    KeyboardInterrupt(const KeyboardInterrupt&) noexcept;
    KeyboardInterrupt& operator=(const KeyboardInterrupt&) noexcept;
    ~KeyboardInterrupt();
    const char* what() const noexcept;
};

// A wish to end the process. Leaves run() and run_forever() at once. (SystemExit)
class ASYNCIO_API SystemExit final {
  public:
    explicit SystemExit(int code = 0) noexcept;
    SystemExit(const SystemExit&) noexcept;
    SystemExit& operator=(const SystemExit&) noexcept;
    ~SystemExit();
    int code() const noexcept { return code_; }
    const char* what() const noexcept;

  private:
    int code_;
};

// A call that makes no sense in the state that things are in. (RuntimeError)
class ASYNCIO_API RuntimeError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
    RuntimeError(const RuntimeError&) noexcept;
    RuntimeError& operator=(const RuntimeError&) noexcept;
    ~RuntimeError() override;
};

// In virtual time: nothing is ready and nothing ever will be. what() lists the tasks that wait, in
// the order in which they were made, each with its name and the awaits at which it stands.
class ASYNCIO_API DeadlockError : public RuntimeError {
  public:
    using RuntimeError::RuntimeError;
    DeadlockError(const DeadlockError&) noexcept;
    DeadlockError& operator=(const DeadlockError&) noexcept;
    ~DeadlockError() override;
};

// An argument that no call can take, such as a delay that is not a number. (ValueError)
class ASYNCIO_API ValueError : public std::invalid_argument {
  public:
    using std::invalid_argument::invalid_argument;
    ValueError(const ValueError&) noexcept;
    ValueError& operator=(const ValueError&) noexcept;
    ~ValueError() override;
};

// A future asked for what its state does not give: the result of one that is not done, or a second
// result. (asyncio.InvalidStateError)
class ASYNCIO_API InvalidStateError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
    InvalidStateError(const InvalidStateError&) noexcept;
    InvalidStateError& operator=(const InvalidStateError&) noexcept;
    ~InvalidStateError() override;
};

// The time was up. (TimeoutError, asyncio.TimeoutError)
class ASYNCIO_API TimeoutError : public std::runtime_error {
  public:
    TimeoutError();
    using std::runtime_error::runtime_error;
    TimeoutError(const TimeoutError&) noexcept;
    TimeoutError& operator=(const TimeoutError&) noexcept;
    ~TimeoutError() override;
};

// The peer ended before all was there that a read has asked for. (asyncio.IncompleteReadError)
class ASYNCIO_API IncompleteReadError : public std::runtime_error {
  public:
    // `expected`: how many bytes; nothing if that was not known, as with a separator.
    IncompleteReadError(std::string partial, std::optional<std::size_t> expected);
    IncompleteReadError(const IncompleteReadError&) noexcept;
    IncompleteReadError& operator=(const IncompleteReadError&) noexcept;
    ~IncompleteReadError() override;

    // What was there; the stream has it no more. (IncompleteReadError.partial)
    const std::string& partial() const noexcept { return *partial_; }
    // (IncompleteReadError.expected)
    std::optional<std::size_t> expected() const noexcept { return expected_; }

  private:
    std::shared_ptr<const std::string> partial_;
    std::optional<std::size_t> expected_;
};

// A separator was not found within the stream's limit. What was received is still there.
// (asyncio.LimitOverrunError)
class ASYNCIO_API LimitOverrunError : public std::runtime_error {
  public:
    LimitOverrunError(const std::string& message, std::size_t consumed);
    LimitOverrunError(const LimitOverrunError&) noexcept;
    LimitOverrunError& operator=(const LimitOverrunError&) noexcept;
    ~LimitOverrunError() override;

    // How many bytes can be read without losing a separator. (LimitOverrunError.consumed)
    std::size_t consumed() const noexcept { return consumed_; }

  private:
    std::size_t consumed_;
};

ASYNCIO_END_NAMESPACE
