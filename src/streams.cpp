// SPDX-License-Identifier: MIT
#include <asyncio/streams.hpp>
#include <asyncio/timeouts.hpp>

#include <algorithm>
#include <cerrno>
#include <limits>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// --- reads

template <class Op> IoOperation::Attempt StreamReadOf<Op>::attempt() {
    if (stream().has_reader() && !has_place) throw_second_reader(Op::name);
    const Attempt attempt = op().read();
    has_place = attempt == Attempt::blocked;
    if (has_place) {
        stream().begin_reading();
    } else {
        stream().end_reading();
    }
    return attempt;
}

template <class Op> inline bool StreamReadOf<Op>::go_on() noexcept {
    begin_run();
    if (task_->cancel_due()) [[unlikely]]
        return true;
    try {
        if (has_place && op().read_now()) [[likely]] {
            stream().end_reading();
        } else if (StreamReadOf::attempt() == Attempt::blocked) {
            wait_on(Direction::read);
            return false;
        }
        set_done();
    } catch (...) {
        set_failed(std::current_exception());
    }
    return true;
}
template <class Op> void StreamReadOf<Op>::run() {
    if (go_on()) [[likely]]
        task_->step_here();
}
template <class Op> void StreamReadOf<Op>::run_in_debug() {
    if (go_on()) task_->step_in_debug();
}

void StreamRead::clean_up() noexcept {
    if (has_place) stream().end_reading(); // it was cancelled, or its frame destroyed
    IoOperation::end();
}

void StreamRead::throw_second_reader(const char* name) {
    throw RuntimeError(std::string(name) +
                       "() called while another coroutine is already waiting for incoming data: "
                       "only one task at a time may read from a stream");
}

void StreamRead::throw_read_error() const { std::rethrow_exception(stream().read_error()); }

IoOperation::Attempt ReadSome::read() {
    if (size_ == 0) return Attempt::done;
    if (size_ > 0) {
        if (stream().received().empty() && more() == More::blocked) return Attempt::blocked;
        data_ = take(static_cast<std::size_t>(size_));
        return Attempt::done;
    }
    for (;;) {
        const More got = more();
        if (got == More::blocked) return Attempt::blocked;
        if (got == More::end) break;
    }
    data_ = take(std::string::npos);
    return Attempt::done;
}

bool ReadSome::read_now() {
    if (size_ <= 0) return false;
    if (!stream().is_attached()) return false;
    const IoBlock block(stream().io());
    std::size_t count = 0;
    const std::size_t most = std::min(static_cast<std::size_t>(size_), Io::block_size);
    if (!stream().receive_now(block.span().first(most), count)) return false;
    data_ = std::string(block.span().data(), count);
    return true;
}

IoOperation::Attempt ReadInto::read() {
    count_ = 0;
    if (buffer_.empty()) return Attempt::done;
    const More got = result_of(stream().read_into(buffer_, count_));
    return got == More::blocked ? Attempt::blocked : Attempt::done;
}

IoOperation::Attempt ReadExactly::read() {
    // A negative size, as it is seen here.
    if (size_ > static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()))
        throw ValueError("readexactly size can not be less than zero");
    while (stream().received().size() < size_) {
        // Not all of the room at once: `size` may come from the peer.
        const std::size_t missing = size_ - stream().received().size();
        const More got = more(std::min(missing, std::size_t{64 * 1024}));
        if (got == More::blocked) return Attempt::blocked;
        if (got == More::end) throw IncompleteReadError(take(std::string::npos), size_);
    }
    data_ = take(size_);
    return Attempt::done;
}

IoOperation::Attempt Peek::read() {
    while (stream().received().size() < at_least_) {
        const More got =
            more(std::min(at_least_ - stream().received().size(), std::size_t{64 * 1024}));
        if (got == More::blocked) return Attempt::blocked;
        if (got == More::end) break;
    }
    return Attempt::done;
}

bool UntilSearch::is_valid() const noexcept {
    for (const std::string_view separator : separators()) {
        if (separator.empty()) return false;
    }
    return true;
}

std::size_t UntilSearch::find(std::string_view data, std::size_t limit) {
    std::size_t longest = 0;
    std::size_t end = std::string_view::npos;
    std::size_t start = 0;
    for (const std::string_view separator : separators()) {
        longest = std::max(longest, separator.size());
        const std::size_t found = data.find(separator, searched_);
        if (found == std::string_view::npos) continue;
        const std::size_t its_end = found + separator.size();
        if (its_end < end || (its_end == end && found > start)) { // of equal ends, the shortest
            end = its_end;
            start = found;
        }
    }
    if (end != std::string_view::npos) {
        if (start > limit) {
            throw LimitOverrunError("Separator is found, but chunk is longer than limit", start);
        }
        return end;
    }
    if (data.size() + 1 > longest) searched_ = std::max(searched_, data.size() + 1 - longest);
    if (searched_ > limit) {
        throw LimitOverrunError("Separator is not found, and chunk exceed the limit", searched_);
    }
    return std::string_view::npos;
}

IoOperation::Attempt ReadUntil::read() {
    if (!search_.is_valid()) throw ValueError("Separator should be at least one-byte string");
    for (;;) {
        const std::size_t end = search_.find(stream().received().view(), stream().limit());
        if (end != std::string_view::npos) {
            data_ = take(end);
            return Attempt::done;
        }
        const More got = more();
        if (got == More::blocked) return Attempt::blocked;
        if (got == More::end) throw IncompleteReadError(take(std::string::npos), std::nullopt);
    }
}

template <class Op> IoOperation::Attempt ReadLineOf<Op>::read() {
    for (;;) {
        std::size_t end = 0;
        try {
            end = search_.find(this->stream().received().view(), this->stream().limit());
        } catch (const LimitOverrunError& error) {
            // The line is dropped if its end is there, else all that is there.
            const ByteBuffer<Io>& received = this->stream().received();
            const std::size_t consumed = error.consumed();
            const bool ends = received.view().substr(consumed).starts_with('\n');
            this->stream().consume(ends ? consumed + 1 : received.size());
            throw ValueError(error.what());
        }
        if (end != std::string_view::npos) {
            data_ = this->take(end);
            return IoOperation::Attempt::done;
        }
        const auto got = this->more();
        if (got == StreamRead::More::blocked) return IoOperation::Attempt::blocked;
        if (got == StreamRead::More::end) {
            data_ = this->take(std::string::npos);
            return IoOperation::Attempt::done;
        }
    }
}

template class StreamReadOf<ReadSome>;
template class StreamReadOf<ReadInto>;
template class StreamReadOf<ReadExactly>;
template class StreamReadOf<Peek>;
template class StreamReadOf<ReadUntil>;
template class StreamReadOf<ReadLine>;
template class StreamReadOf<NextLine>;
template class ReadLineOf<ReadLine>;
template class ReadLineOf<NextLine>;

// --- the rest of what is awaited

IoOperation::Attempt Handshake::attempt() {
    switch (connection().handshake()) {
    case Connection::Got::data:
        return Attempt::done;
    case Connection::Got::blocked:
        put_off = connection().believed(Direction::read);
        return Attempt::blocked;
    case Connection::Got::failed:
        std::rethrow_exception(connection().read_error());
    case Connection::Got::end:
        break;
    }
    throw_system_error(ECONNRESET, "the TLS handshake with " + connection().peername().text() +
                                       ": the connection was closed meanwhile");
}

std::exception_ptr DrainWait::end() {
    if (was_refused()) return of_another_loop();
    if (std::exception_ptr failed = leave("StreamWriter")) return failed;
    return is_cancel_due() ? take_cancelled() : nullptr;
}

bool Drain::begin(TaskBase& task, std::coroutine_handle<> frame) noexcept {
    task_ = &task;
    waits_ = false;
    if (stream_.is_writing_paused() && !stream_.is_lost() && stream_.write_error() == nullptr) {
        waits_ = true;
        ::new (static_cast<void*>(&wait_)) DrainWait(stream_);
        return wait_.begin(task, frame, stream_);
    }
    // It is closing, and others may have something to say to that; or the budget is spent.
    if (stream_.is_attached()) stream_.io().refresh_budget();
    task.yield(frame);
    return true;
}

void Drain::clean_up() noexcept {
    if (std::exchange(waits_, false)) wait_.~DrainWait();
    task_ = nullptr;
}

std::exception_ptr Drain::failure() {
    if (waits_) {
        if (std::exception_ptr failed = wait_.end()) return failed;
    } else if (task_->cancel_due()) {
        return task_->take_cancelled();
    }
    if (stream_.write_error() != nullptr) return stream_.write_error();
    if (stream_.read_error() != nullptr) return stream_.read_error();
    if (!stream_.is_lost()) return nullptr;
    if (stream_.loss() != nullptr) return stream_.loss();
    if (waits_ && !stream_.is_writing_paused()) return nullptr; // it was closed meanwhile, in order
    return make_system_error(ECONNRESET, "drain: the connection to " + stream_.peername().text() +
                                             " is closed");
}

void Drain::finish() {
    if (std::exception_ptr failed = failure()) std::rethrow_exception(std::move(failed));
    clean_up();
}

Result<void> Drain::take_result() {
    if (task_ == nullptr) return {};
    if (std::exception_ptr failed = failure()) return Result<void>(std::move(failed));
    return {};
}

std::exception_ptr WaitClosed::failure() {
    if (has_waited()) {
        if (was_refused()) return of_another_loop();
        if (std::exception_ptr failed = leave("StreamWriter")) return failed;
        if (is_cancel_due()) return take_cancelled();
    }
    if (stream_.loss() != nullptr) return stream_.loss();
    return stream_.write_error() != nullptr ? stream_.write_error() : stream_.read_error();
}

void WaitClosed::await_resume() {
    if (std::exception_ptr failed = failure()) std::rethrow_exception(std::move(failed));
}

Result<void> WaitClosed::take_result() {
    if (std::exception_ptr failed = failure()) return Result<void>(std::move(failed));
    return {};
}

// --- connections

StreamState* new_stream(EventLoop& loop, int descriptor, const Address& peer, std::size_t limit) {
    OwnedDescriptor open(descriptor);
    return new StreamState(loop, open.take(), peer, limit); // taken once there is memory for it
}

void end_failed_connection(const StreamReader& reader, const char* what) {
    reader.state().close();
    try {
        throw;
    } catch (const CancelledError&) {
        throw;
    } catch (const KeyboardInterrupt&) {
        throw;
    } catch (const SystemExit&) {
        throw;
    } catch (...) {
        const std::exception_ptr failure = std::current_exception();
        get_running_loop().tell([&] {
            return ExceptionContext{.message = what,
                                    .exception = failure,
                                    .details = {{"peer", reader.state().peername().text()}}};
        });
    }
}

namespace {

// The handshake of a session that has been begun; what fails aborts the connection.
// NOLINTNEXTLINE(cppcoreguidelines-avoid-reference-coroutine-parameters): `writer` keeps it
Coro<> secure(StreamWriter writer, StreamState& stream, std::unique_ptr<TlsSession> session,
              Delay handshake_timeout, Delay shutdown_timeout) {
    stream.start_tls(std::move(session), shutdown_timeout);
    std::exception_ptr failure;
    try {
        co_await wait_for(IoAwaiter<Handshake>(&stream), handshake_timeout);
    } catch (const TimeoutError&) {
        failure = std::current_exception();
        if (stream.read_error() == nullptr) { // else a callback of the context's has thrown it
            failure = std::make_exception_ptr(
                TimeoutError("the TLS handshake with " + stream.peername().text() +
                             " has not ended in time; see ssl_handshake_timeout"));
        }
    } catch (...) {
        failure = std::current_exception();
    }
    if (failure != nullptr) {
        writer.abort();
        std::rethrow_exception(failure);
    }
}

} // namespace

Coro<> accept_tls(StreamWriter writer, std::shared_ptr<TlsContext> context, Delay handshake_timeout,
                  Delay shutdown_timeout) {
    StreamState& stream = writer.state();
    std::unique_ptr<TlsSession> session;
    try {
        session = context->server();
    } catch (...) {
        writer.abort();
        throw;
    }
    co_await secure(writer, stream, std::move(session), handshake_timeout, shutdown_timeout);
}

namespace {

// The streams of a connected socket, with TLS if the options say so.
Coro<Streams> streams_of(Connecting connected, ConnectionOptions options) {
    EventLoop& loop = get_running_loop();
    send_without_delay(connected.socket.fileno(), connected.peer);
    StreamState* stream =
        new_stream(loop, connected.socket.detach(), connected.peer, options.limit());
    StreamReader reader(stream);
    stream->retain();
    StreamWriter writer(stream);
    stream->connected_to(connected.host);
    if (options.tls() != nullptr) {
        std::unique_ptr<TlsSession> session = options.tls()->client(
            options.server_hostname().value_or(connected.host), options.ssl_session().get());
        co_await secure(writer, *stream, std::move(session), options.handshake_timeout(),
                        options.shutdown_timeout());
    }
    co_return Streams(std::move(reader), std::move(writer));
}

} // namespace
} // namespace detail

// --- the public parts

void StreamReader::refuse_consume(std::size_t count) const {
    // It has looked at what would go, and goes on from there.
    if (state_->has_reader())
        throw RuntimeError("consume() called while a coroutine is waiting for incoming data: "
                           "only one task at a time may read from a stream");
    throw ValueError("consume(" + std::to_string(count) + ") of a buffer with " +
                     std::to_string(state_->received().size()) +
                     " bytes: peek() says how many there are");
}

namespace {

void refuse_start_tls(const detail::StreamState& stream) {
    if (stream.is_in_handshake())
        throw RuntimeError("start_tls() while the handshake of TLS is under way: await it first");
    if (stream.has_written_eof()) throw RuntimeError("start_tls() after write_eof()");
    if (stream.has_reader())
        throw RuntimeError("start_tls() while a coroutine waits for incoming data: end the read "
                           "before");
}

} // namespace

Coro<> StreamWriter::start_tls_with(StreamWriter writer,
                                    std::shared_ptr<detail::TlsContext> context,
                                    StartTlsOptions options) {
    detail::StreamState& stream = *writer.state_;
    refuse_start_tls(stream);
    const bool is_server = options.server_side().value_or(stream.is_server());
    if (is_server) detail::check_server_options(options);
    std::unique_ptr<detail::TlsSession> session =
        is_server ? context->server()
                  : context->client(options.server_hostname().value_or(stream.host()),
                                    options.ssl_session().get());
    co_await writer.drain();
    refuse_start_tls(stream); // once more: others ran meanwhile
    // What it still has to send would be lost.
    if (stream.is_closing()) throw RuntimeError("start_tls() on a connection that is closing");
    co_await detail::secure(writer, stream, std::move(session), options.handshake_timeout(),
                            options.shutdown_timeout());
}

Coro<Streams> open_connection(ConnectionOptions options) {
    detail::Connecting connected = detail::connected_socket(options);
    co_return co_await detail::streams_of(std::move(connected), std::move(options));
}

Coro<Streams> open_connection(std::string host, int port, ConnectionOptions options) {
    detail::Connecting connected = co_await detail::connect_to(std::move(host), port, options);
    co_return co_await detail::streams_of(std::move(connected), std::move(options));
}

Coro<Streams> open_unix_connection(std::string path, ConnectionOptions options) {
    detail::Connecting connected = co_await detail::connect_to_unix(std::move(path), options);
    co_return co_await detail::streams_of(std::move(connected), std::move(options));
}

ASYNCIO_END_NAMESPACE
