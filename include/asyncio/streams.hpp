// SPDX-License-Identifier: MIT
// Streams: connections to read from and to write to.
//
//     auto streams = co_await asyncio::open_connection("example.org", 80);
//     auto& [reader, writer] = streams;
//     writer.write("GET / HTTP/1.0\r\nHost: example.org\r\n\r\n");
//     co_await writer.drain();
//     std::string status = co_await reader.readline();
//     writer.close();
//     co_await writer.wait_closed();
//
// and a server:
//
//     asyncio::Coro<> handle(asyncio::StreamReader reader, asyncio::StreamWriter writer) {
//         while (auto line = co_await reader.next()) {
//             writer.write(*line);
//             co_await writer.drain();
//         }
//     }
//     auto server = co_await asyncio::start_server(handle, "127.0.0.1", 8080);
//     co_await server.serve_forever();
//
// Reader and writer are handles of one connection: copies mean the same one. It is closed by
// close(), or when its last writer is gone; what was written before still goes out then. Data is
// read when it is asked for, so that a peer which sends faster than anybody reads is held back by
// the kernel. Any await may be cancelled, and no byte that was received is lost by it.
// (asyncio.streams)
#pragma once

#include <asyncio/bytes.hpp>
#include <asyncio/connections.hpp>
#include <asyncio/coroutine.hpp>
#include <asyncio/detail/connection.hpp>
#include <asyncio/detail/wait_list.hpp>
#include <asyncio/exceptions.hpp>
#include <asyncio/extra_info.hpp>
#include <asyncio/server.hpp>
#include <asyncio/tasks.hpp>

#include <concepts>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <source_location>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE

namespace detail {

// What a StreamReader and a StreamWriter point to.
class ASYNCIO_API StreamState final : public Connection {
  public:
    StreamState(EventLoop& loop, int descriptor, const Address& peer, std::size_t limit)
        : Connection(loop, descriptor, peer), limit_(limit) {
        drain_waiters_.bind(loop);
        end_waiters_.bind(loop);
    }

    std::size_t limit() const noexcept { return limit_; }
    // Of start_tls(): who is the client, and whom it has connected to.
    void connected_to(std::string host) { host_ = std::move(host); }
    void came_to_server() noexcept { is_server_ = true; }
    const std::string& host() const noexcept { return host_; }
    bool is_server() const noexcept { return is_server_; }
    void add_writer() noexcept { ++writers_; }
    void drop_writer() noexcept {
        if (--writers_ == 0) close();
    }
    WaitList& drain_waiters() noexcept { return drain_waiters_; }
    WaitList& end_waiters() noexcept { return end_waiters_; }
    // There is a read that waits: at most one. Nobody else fills received() then.
    bool has_reader() const noexcept { return has(reader_flag); }
    void begin_reading() noexcept { set(reader_flag); }
    void end_reading() noexcept { clear(reader_flag); }
    // A read has to wait, and may: nothing is there, and nothing will be before an edge comes.
    bool must_wait_to_read() const noexcept { return is_without_data(reader_flag); }

    // fill(), by which a read that wants much goes on and on if the peer is fast: so much in a
    // turn.
    Got fill_in_turn(std::size_t at_least) {
        const std::size_t before = received().size();
        const Got got = fill(at_least);
        in_this_turn_ = got == Got::data ? in_this_turn_ + received().size() - before : 0;
        return got;
    }
    bool has_had_its_turn() noexcept {
        constexpr std::size_t most_in_a_turn = std::size_t{512} * 1024;
        if (in_this_turn_ < most_in_a_turn) return false;
        in_this_turn_ = 0;
        return true;
    }

  private:
    ~StreamState() override = default;
    void writing_resumed() override { wake_all(drain_waiters_); }
    void writing_failed() noexcept override { wake_all(drain_waiters_); }
    void connection_lost() override {
        wake_all(drain_waiters_);
        wake_all(end_waiters_);
    }
    static void wake_all(WaitList& waiters) noexcept {
        while (waiters.wake_next()) {
        }
    }

    static constexpr std::uint32_t reader_flag = 1U << first_of_stream;

    std::size_t limit_;
    std::size_t in_this_turn_ = 0;
    std::uint32_t writers_ = 0;
    bool is_server_ = false;
    std::string host_;
    WaitList drain_waiters_;
    WaitList end_waiters_;
};

// A read of a stream.
class ASYNCIO_API StreamRead : public IoOperation {
  public:
    void end() noexcept {
        if (!is_done()) [[unlikely]] {
            clean_up();
        }
        stream().release();
    }

  protected:
    explicit StreamRead(StreamState& stream) noexcept : IoOperation(stream) { stream.retain(); }
    StreamRead(StreamRead&& other) noexcept : IoOperation(std::move(other)) { stream().retain(); }
    ~StreamRead() = default;

    enum class More : std::uint8_t { some, blocked, end };
    // More into received(). Throws what reading has failed with. `blocked` also when others are to
    // have their turn, since the peer is fast and so much has come in this one.
    More more(std::size_t at_least = 1) {
        if (stream().has_had_its_turn()) {
            put_off = true;
            return More::blocked;
        }
        return result_of(stream().fill_in_turn(at_least));
    }
    More result_of(Connection::Got got) {
        switch (got) {
        case Connection::Got::data:
            return More::some;
        case Connection::Got::blocked:
            put_off = stream().believed(Direction::read);
            return More::blocked;
        case Connection::Got::end:
            return More::end;
        case Connection::Got::failed:
            break;
        }
        throw_read_error();
    }
    // At most so many bytes.
    std::string take(std::size_t count) {
        std::string data(stream().received().view().substr(0, count));
        stream().consume(data.size());
        return data;
    }
    StreamState& stream() const noexcept { return static_cast<StreamState&>(channel()); }

    [[noreturn]] ASYNCIO_COLD static void throw_second_reader(const char* name);

  private:
    [[noreturn]] ASYNCIO_COLD void throw_read_error() const;
    ASYNCIO_COLD void clean_up() noexcept;
};

// Derived: read(), as attempt(); needs_data(), that it cannot be done without any; and read_now(),
// which does read() in the case that is the way of every message: it has waited with nothing kept,
// and the kernel has something. False: it has done nothing.
template <class Op> class ASYNCIO_API StreamReadOf : public StreamRead {
  public:
    bool await_ready() noexcept {
        // Nothing is there, and nothing will come before an edge: the common case of a server.
        if (op().needs_data() && stream().must_wait_to_read()) {
            has_place = true;
            stream().begin_reading();
            return false;
        }
        return is_ready();
    }
    void begin(TaskBase& task, std::coroutine_handle<> frame) noexcept {
        IoOperation::begin(task, frame, Direction::read);
    }

  protected:
    using StreamRead::StreamRead;
    StreamReadOf(StreamReadOf&&) noexcept = default;
    ~StreamReadOf() = default;

  private:
    Op& op() noexcept { return static_cast<Op&>(*this); }
    Attempt attempt() override;
    // As those of IoOperation, in one piece: it is the way of every message.
    ASYNCIO_ALWAYS_INLINE bool go_on() noexcept;
    void run() override;
    void run_in_debug() override;
};

class ASYNCIO_API ReadSome final : public StreamReadOf<ReadSome> {
  public:
    static constexpr const char* name = "read";
    ReadSome(StreamState* stream, std::ptrdiff_t size) noexcept
        : StreamReadOf(*stream), size_(size) {}
    std::string result() noexcept { return std::move(data_); }
    bool needs_data() const noexcept { return size_ != 0; }

  private:
    friend class StreamReadOf;
    Attempt read();
    bool read_now();
    std::ptrdiff_t size_;
    std::string data_;
};

class ASYNCIO_API ReadInto final : public StreamReadOf<ReadInto> {
  public:
    static constexpr const char* name = "read_into";
    ReadInto(StreamState* stream, WritableBytes buffer) noexcept
        : StreamReadOf(*stream), buffer_(buffer) {}
    std::size_t result() const noexcept { return count_; }
    bool needs_data() const noexcept { return !buffer_.empty(); }

  private:
    friend class StreamReadOf;
    Attempt read();
    bool read_now() { return stream().receive_now(buffer_, count_); }
    WritableBytes buffer_;
    std::size_t count_;
};

class ASYNCIO_API ReadExactly final : public StreamReadOf<ReadExactly> {
  public:
    static constexpr const char* name = "readexactly";
    ReadExactly(StreamState* stream, std::size_t size) noexcept
        : StreamReadOf(*stream), size_(size) {}
    std::string result() noexcept { return std::move(data_); }
    bool needs_data() const noexcept { return size_ != 0; }

  private:
    friend class StreamReadOf;
    Attempt read();
    bool read_now() const noexcept { return false; }
    std::size_t size_;
    std::string data_;
};

class ASYNCIO_API Peek final : public StreamReadOf<Peek> {
  public:
    static constexpr const char* name = "peek";
    Peek(StreamState* stream, std::size_t at_least) noexcept
        : StreamReadOf(*stream), at_least_(at_least) {}
    std::string_view result() const noexcept { return stream().received().view(); }
    bool needs_data() const noexcept { return at_least_ != 0; }

  private:
    friend class StreamReadOf;
    Attempt read();
    bool read_now() { return at_least_ == 1 && stream().fill_now(); }
    std::size_t at_least_;
};

// Up to a separator: what readuntil(), readline() and next() share.
class ASYNCIO_API UntilSearch {
  public:
    // One separator, or the shared start of several.
    explicit UntilSearch(std::string_view separator) noexcept : one_(separator) {}
    explicit UntilSearch(std::span<const std::string_view> separators) noexcept
        : several_(separators) {}

    // Not so: one of the separators is empty.
    bool is_valid() const noexcept;
    // Where the first separator that ends ends; npos if there is none yet. Looks at each byte about
    // once, however they come. Throws LimitOverrunError.
    std::size_t find(std::string_view data, std::size_t limit);

  private:
    std::span<const std::string_view> separators() const noexcept {
        return several_.empty() ? std::span(&one_, 1) : several_;
    }
    std::string_view one_;
    std::span<const std::string_view> several_;
    std::size_t searched_ = 0;
};

class ASYNCIO_API ReadUntil final : public StreamReadOf<ReadUntil> {
  public:
    static constexpr const char* name = "readuntil";
    ReadUntil(StreamState* stream, std::string_view separator) noexcept
        : StreamReadOf(*stream), search_(separator) {}
    ReadUntil(StreamState* stream, std::span<const std::string_view> separators) noexcept
        : StreamReadOf(*stream), search_(separators) {}
    std::string result() noexcept { return std::move(data_); }
    bool needs_data() const noexcept { return search_.is_valid(); }

  private:
    friend class StreamReadOf;
    Attempt read();
    bool read_now() const noexcept { return false; }
    UntilSearch search_;
    std::string data_;
};

// A line: what readline() and next() share.
template <class Op> class ASYNCIO_API ReadLineOf : public StreamReadOf<Op> {
  public:
    bool needs_data() const noexcept { return true; }

  protected:
    explicit ReadLineOf(StreamState* stream) noexcept : StreamReadOf<Op>(*stream) {}
    ReadLineOf(ReadLineOf&&) noexcept = default;
    ~ReadLineOf() = default;

    UntilSearch search_{"\n"};
    std::string data_;

  private:
    friend StreamReadOf<Op>;
    IoOperation::Attempt read();
    bool read_now() const noexcept { return false; }
};

class ASYNCIO_API ReadLine final : public ReadLineOf<ReadLine> {
  public:
    static constexpr const char* name = "readline";
    explicit ReadLine(StreamState* stream) noexcept : ReadLineOf(stream) {}
    std::string result() noexcept { return std::move(data_); }
};

class ASYNCIO_API NextLine final : public ReadLineOf<NextLine> {
  public:
    static constexpr const char* name = "next";
    explicit NextLine(StreamState* stream) noexcept : ReadLineOf(stream) {}
    std::optional<std::string> result() noexcept {
        if (data_.empty()) return std::nullopt;
        return std::move(data_);
    }
};

extern template class StreamReadOf<ReadSome>;
extern template class StreamReadOf<ReadInto>;
extern template class StreamReadOf<ReadExactly>;
extern template class StreamReadOf<Peek>;
extern template class StreamReadOf<ReadUntil>;
extern template class StreamReadOf<ReadLine>;
extern template class StreamReadOf<NextLine>;
extern template class ReadLineOf<ReadLine>;
extern template class ReadLineOf<NextLine>;

// The handshake of TLS. Gives nothing; throws what it failed with.
class ASYNCIO_API Handshake final : public IoOperation {
  public:
    explicit Handshake(Connection* connection) noexcept : IoOperation(*connection) {
        connection->retain();
    }
    Handshake(Handshake&& other) noexcept : IoOperation(std::move(other)) { connection().retain(); }
    void end() noexcept {
        IoOperation::end();
        connection().release();
    }
    bool await_ready() noexcept { return is_ready(); }
    void result() const noexcept {}

  private:
    Connection& connection() const noexcept { return static_cast<Connection&>(channel()); }
    Attempt attempt() override;
};

// drain(), while it waits.
class ASYNCIO_API DrainWait final : public Waiter {
  public:
    explicit DrainWait(StreamState& stream) noexcept : Waiter(stream.drain_waiters()) {}

    bool begin(TaskBase& task, std::coroutine_handle<> frame, StreamState& stream) noexcept {
        return Waiter::begin(task, frame, stream.drain_waiters());
    }
    // After the wait. Null if there was nothing but a drain.
    std::exception_ptr end();
};

// drain(). Most of the time there is nothing to wait for, and nothing is made for it.
class ASYNCIO_API Drain {
  public:
    using AsyncioAwaiter = void;

    explicit Drain(StreamState* stream) noexcept : stream_(*stream) { stream->retain(); }
    Drain(Drain&& other) noexcept : Drain(&other.stream_) {} // of one that is not awaited yet
    Drain& operator=(Drain&&) = delete;
    ~Drain() {
        if (task_ != nullptr) [[unlikely]]
            clean_up();
        stream_.release();
    }

    bool await_ready() const noexcept { return stream_.is_drained() && stream_.io().spend(); }
    template <std::derived_from<PromiseBase> Promise>
    bool await_suspend(std::coroutine_handle<Promise> frame,
                       std::source_location where = std::source_location::current()) noexcept {
        frame.promise().where = where;
        return begin(*frame.promise().task, frame);
    }
    void await_resume() {
        if (task_ != nullptr) [[unlikely]]
            finish();
    }
    Result<void> take_result();

  private:
    bool begin(TaskBase& task, std::coroutine_handle<> frame) noexcept;
    ASYNCIO_COLD void finish();
    ASYNCIO_COLD void clean_up() noexcept;
    std::exception_ptr failure();

    TaskBase* task_ = nullptr; // while it waits
    bool waits_;               // in the list, not for a turn; while it waits
    StreamState& stream_;
    union {
        DrainWait wait_;
    };
};

// wait_closed().
class ASYNCIO_API WaitClosed final : public Waiter {
  public:
    explicit WaitClosed(StreamState* stream) noexcept
        : Waiter(stream->end_waiters()), stream_(*stream) {
        stream->retain();
    }
    WaitClosed(WaitClosed&& other) noexcept : WaitClosed(&other.stream_) {} // not awaited yet
    WaitClosed& operator=(WaitClosed&&) = delete;
    ~WaitClosed() { stream_.release(); }

    bool await_ready() const noexcept { return stream_.is_lost(); }
    void await_resume();
    Result<void> take_result();

  private:
    std::exception_ptr failure();
    StreamState& stream_;
};

} // namespace detail

// Reads from a connection. One task at a time: a second read while one waits throws RuntimeError.
// What is received and not asked for waits in a buffer; a read takes from there first. Once the
// peer has ended, or this side has closed, reads give what is left, and then nothing; after a
// failure they throw it, a std::system_error or an ssl::Error. (asyncio.StreamReader)
class ASYNCIO_API StreamReader {
  public:
    StreamReader(const StreamReader& other) noexcept : state_(other.state_) {
        if (state_ != nullptr) state_->retain();
    }
    StreamReader(StreamReader&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
    StreamReader& operator=(StreamReader other) noexcept {
        std::swap(state_, other.state_);
        return *this;
    }
    ~StreamReader() {
        if (state_ != nullptr) state_->release();
    }

    // At most `size` bytes, as soon as there are some, and nothing at the end; without a size, or
    // with a negative one, everything up to the end. (StreamReader.read)
    detail::IoAwaiter<detail::ReadSome> read(std::ptrdiff_t size = -1) const {
        return detail::IoAwaiter<detail::ReadSome>(state_, size);
    }
    // The same into a buffer, from the kernel straight into it where that can be; gives how many
    // bytes, 0 at the end.
    detail::IoAwaiter<detail::ReadInto> read_into(WritableBytes buffer) const {
        return detail::IoAwaiter<detail::ReadInto>(state_, buffer);
    }
    // So that the frame of who awaits it does not hold a WritableBytes.
    template <class R>
        requires(std::constructible_from<WritableBytes, R> &&
                 !std::same_as<std::remove_cvref_t<R>, WritableBytes>)
    detail::IoAwaiter<detail::ReadInto> read_into(R&& buffer) const {
        return read_into(WritableBytes(std::forward<R>(buffer)));
    }
    // So many bytes. Throws IncompleteReadError if the end comes before, with what there was.
    // (StreamReader.readexactly)
    detail::IoAwaiter<detail::ReadExactly> readexactly(std::size_t size) const {
        return detail::IoAwaiter<detail::ReadExactly>(state_, size);
    }
    // Everything up to and with the separator. Throws IncompleteReadError if the end comes before,
    // with what there was; LimitOverrunError if there is none within the limit, and the data stays.
    // Of several separators the one counts that ends first, and of these the shortest. The
    // separators must stay where they are until the await is over. (StreamReader.readuntil)
    detail::IoAwaiter<detail::ReadUntil> readuntil(ReadableBytes separator = "\n") const {
        return detail::IoAwaiter<detail::ReadUntil>(state_, std::string_view(separator));
    }
    detail::IoAwaiter<detail::ReadUntil>
    readuntil(std::span<const std::string_view> separators) const {
        return detail::IoAwaiter<detail::ReadUntil>(state_, separators);
    }
    // A line with its "\n"; at the end what is left without one, and then nothing. A line over the
    // limit is dropped, as far as it has come, and throws ValueError. (StreamReader.readline)
    detail::IoAwaiter<detail::ReadLine> readline() const {
        return detail::IoAwaiter<detail::ReadLine>(state_);
    }
    // The same, and nothing at the end: `while (auto line = co_await reader.next())`.
    // (async for line in reader)
    detail::IoAwaiter<detail::NextLine> next() const {
        return detail::IoAwaiter<detail::NextLine>(state_);
    }

    // What is in the buffer, at least so many bytes, without taking it out; less only at the end.
    // Good until the next read or consume(). No copy is made.
    detail::IoAwaiter<detail::Peek> peek(std::size_t at_least = 1) const {
        return detail::IoAwaiter<detail::Peek>(state_, at_least);
    }
    // Takes so many bytes out of the buffer. Throws ValueError if there are fewer, RuntimeError
    // while a read waits, which has looked at them already.
    void consume(std::size_t count) const {
        if (count > state_->received().size() || state_->has_reader()) [[unlikely]]
            refuse_consume(count);
        state_->consume(count);
    }
    // What is in the buffer now.
    std::string_view buffered() const noexcept { return state_->received().view(); }

    // The buffer is empty, and the end has come. (StreamReader.at_eof)
    bool at_eof() const noexcept { return state_->at_end(); }
    // Of readuntil() and readline().
    std::size_t limit() const noexcept { return state_->limit(); }
    // Why reading has failed, null if it has not. (StreamReader.exception)
    std::exception_ptr exception() const noexcept { return state_->read_error(); }

    // For the library.
    detail::StreamState& state() const noexcept { return *state_; }
    // For the library: takes over a reference.
    explicit StreamReader(detail::StreamState* adopted) noexcept : state_(adopted) {}

  private:
    [[noreturn]] ASYNCIO_COLD void refuse_consume(std::size_t count) const;

    detail::StreamState* state_;
};

// Writes to a connection. (asyncio.StreamWriter)
class ASYNCIO_API StreamWriter {
  public:
    StreamWriter(const StreamWriter& other) noexcept : state_(other.state_) {
        if (state_ == nullptr) return;
        state_->retain();
        state_->add_writer();
    }
    StreamWriter(StreamWriter&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
    StreamWriter& operator=(StreamWriter other) noexcept {
        std::swap(state_, other.state_);
        return *this;
    }
    ~StreamWriter() {
        if (state_ == nullptr) return;
        state_->drop_writer();
        state_->release();
    }

    // Sends the data at once, as far as the kernel takes it, and keeps a copy of the rest, which
    // goes out by and by. Never waits: follow it by drain(). After close(), or when the connection
    // has failed, the data is dropped, and drain() says so. Throws RuntimeError after write_eof().
    // (StreamWriter.write)
    void write(ReadableBytes data) const { state_->write(std::string_view(data)); }
    // The same of several pieces, in one system call. (StreamWriter.writelines)
    void writelines(std::span<const ReadableBytes> parts) const { state_->write(parts); }
    void writelines(std::initializer_list<ReadableBytes> parts) const {
        writelines(std::span<const ReadableBytes>(parts));
    }
    template <class Range>
        requires(std::ranges::input_range<Range> && !detail::ByteRange<Range> &&
                 std::constructible_from<ReadableBytes, std::ranges::range_reference_t<Range>> &&
                 !std::convertible_to<Range, std::span<const ReadableBytes>>)
    void writelines(const Range& parts) const {
        std::vector<ReadableBytes> pieces;
        for (const auto& part : parts) pieces.emplace_back(part);
        writelines(std::span<const ReadableBytes>(pieces));
    }
    // Waits, if more is kept than the high-water mark, until it is not more than the low one.
    // Throws what the connection has failed with; std::system_error (ECONNRESET) if it is closed. A
    // cancel ends the wait, and what was written still goes out. (StreamWriter.drain)
    [[nodiscard("nothing is waited for until it is awaited")]] detail::Drain drain() const {
        return detail::Drain(state_);
    }
    // Ends our side, once everything is sent: the peer reads to the end, and may go on sending.
    // Throws RuntimeError with TLS. (StreamWriter.write_eof, StreamWriter.can_write_eof)
    void write_eof() const { state_->write_eof(); }
    bool can_write_eof() const noexcept { return state_->can_write_eof(); }
    // Closes the connection, once everything is sent. Reads give what was received, and then the
    // end. A second call does nothing. (StreamWriter.close)
    void close() const noexcept { state_->close(); }
    // The same at once: what was not sent is dropped. (StreamWriter.transport.abort)
    void abort() const noexcept { state_->abort(); }
    // close() was called, or the connection has failed for writing. (StreamWriter.is_closing)
    bool is_closing() const noexcept {
        return state_->is_closing() || state_->write_error() != nullptr;
    }
    // Waits until it is closed; throws what it has failed with. Call close() before.
    // (StreamWriter.wait_closed)
    [[nodiscard("nothing is waited for until it is awaited")]] detail::WaitClosed
    wait_closed() const {
        return detail::WaitClosed(state_);
    }

    // What is kept because the kernel would not take it, in bytes; and the marks between which
    // drain() waits. Default: 64 KiB and a quarter of that. Throws ValueError unless high >= low.
    // (StreamWriter.transport.get_write_buffer_size, set_write_buffer_limits,
    // get_write_buffer_limits)
    std::size_t get_write_buffer_size() const noexcept { return state_->write_buffer_size(); }
    void set_write_buffer_limits(std::optional<std::size_t> high = std::nullopt,
                                 std::optional<std::size_t> low = std::nullopt) const {
        state_->set_write_buffer_limits(high, low);
    }
    std::pair<std::size_t, std::size_t> get_write_buffer_limits() const noexcept {
        return {state_->low_water(), state_->high_water()};
    }

    // The connection goes on in TLS, by an ssl::Context, beginning with what was received and not
    // read. Everything that was written is sent first. Throws ssl::Error, with what failed and for
    // which host; TimeoutError; what drain() throws; RuntimeError while somebody reads or a
    // handshake is under way, and if it is closing. After a failure of the handshake, or a cancel,
    // the connection is aborted. If it speaks TLS already, the new one is spoken inside of it, as
    // with an HTTPS proxy that has answered CONNECT; get_extra_info(ssl_object) is the inner one
    // then. (StreamWriter.start_tls)
    template <class Context>
        requires requires(const Context& context) { context.tls(); }
    ASYNCIO_CORO_WRAPPER Coro<> start_tls(const Context& context,
                                          const StartTlsOptions& options = {}) const {
        return start_tls_with(*this, context.tls(), options);
    }

    // The peer's address, ours (of no family once it is closed); the socket; and the ssl::Object,
    // null without TLS. (StreamWriter.get_extra_info)
    Address get_extra_info(PeerName) const { return state_->peername(); }
    Address get_extra_info(SockName) const { return state_->sockname(); }
    TransportSocket get_extra_info(SocketOf) const { return TransportSocket(state_->descriptor()); }
    const ssl::Object* get_extra_info(SslObject) const noexcept {
        return state_->tls() != nullptr ? &state_->tls()->object() : nullptr;
    }

    // For the library.
    detail::StreamState& state() const noexcept { return *state_; }
    // For the library: takes over a reference.
    explicit StreamWriter(detail::StreamState* adopted) noexcept : state_(adopted) {
        state_->add_writer();
    }

  private:
    static Coro<> start_tls_with(StreamWriter writer, std::shared_ptr<detail::TlsContext> context,
                                 StartTlsOptions options);

    detail::StreamState* state_;
};

// What open_connection() gives: `auto& [reader, writer] = streams;`
using Streams = std::pair<StreamReader, StreamWriter>;

// Connects to a host, which is a name or a numeric address. Throws std::system_error if no address
// of it answers, GaiError if it has none, ssl::Error and TimeoutError of the handshake; after a
// cancel nothing is left open. (asyncio.open_connection)
ASYNCIO_API Coro<Streams> open_connection(std::string host, int port,
                                          ConnectionOptions options = {});
// With a socket of the caller's, in the options. Throws ValueError without one.
ASYNCIO_API Coro<Streams> open_connection(ConnectionOptions options);
// To a Unix socket: a path, or an abstract name that begins with a zero byte. With TLS the options
// must name the server_hostname. (asyncio.open_unix_connection)
ASYNCIO_API Coro<Streams> open_unix_connection(std::string path, ConnectionOptions options = {});

namespace detail {

ASYNCIO_API StreamState* new_stream(EventLoop& loop, int descriptor, const Address& peer,
                                    std::size_t limit);
// The handshake of a server's connection. Throws what it fails with.
ASYNCIO_API Coro<> accept_tls(StreamWriter writer, std::shared_ptr<TlsContext> context,
                              Delay handshake_timeout, Delay shutdown_timeout);
// While the exception that ended a connection's task is being handled: closes the connection,
// though somebody may have kept its writer, and reports what is not meant to end the task.
ASYNCIO_API ASYNCIO_COLD void end_failed_connection(const StreamReader& reader, const char* what);

template <class Handler> class StreamServer final : public ServerState {
  public:
    StreamServer(EventLoop& loop, const ServerOptions& options, std::shared_ptr<Handler> handler)
        : ServerState(loop, options.settings()), limit_(options.limit()),
          handler_(std::move(handler)) {}

  private:
    void accepted(int descriptor, const Address& peer) override {
        auto* stream = new_stream(loop(), descriptor, peer, limit_);
        stream->came_to_server();
        stream->join(*this);
        const StreamReader reader(stream);
        stream->retain();
        const StreamWriter writer(stream);
        static_cast<void>(
            asyncio::create_task(loop(), serve(handler_, reader, writer, settings().tls,
                                               settings().tls_timeouts.handshake(),
                                               settings().tls_timeouts.shutdown())));
    }

    // A connection's task.
    static Coro<> serve(std::shared_ptr<Handler> handler, StreamReader reader, StreamWriter writer,
                        std::shared_ptr<TlsContext> tls, Delay handshake_timeout,
                        Delay shutdown_timeout) {
        const char* what = "the TLS handshake with a client failed";
        try {
            if (tls != nullptr)
                co_await accept_tls(writer, std::move(tls), handshake_timeout, shutdown_timeout);
            what = "Unhandled exception in client_connected_cb";
            if constexpr (gives_coroutine<Handler&, StreamReader, StreamWriter>) {
                co_await (*handler)(reader, std::move(writer));
            } else {
                (*handler)(reader, std::move(writer));
            }
        } catch (...) {
            end_failed_connection(reader, what);
        }
    }

    std::size_t limit_;
    std::shared_ptr<Handler> handler_;
};

template <class F>
concept ConnectionHandler =
    std::is_invocable_v<std::decay_t<F>&, StreamReader, StreamWriter> &&
    (gives_coroutine<std::decay_t<F>&, StreamReader, StreamWriter> ||
     std::is_void_v<std::invoke_result_t<std::decay_t<F>&, StreamReader, StreamWriter>>);

template <class Handler>
Coro<Server> serve_streams_at_hosts(std::shared_ptr<Handler> handler,
                                    std::vector<std::string> hosts, int port,
                                    ServerOptions options) {
    const Server server(new StreamServer<Handler>(get_running_loop(), options, std::move(handler)));
    co_return co_await bind_and_start(server, std::move(hosts), port, options.sock());
}
template <class Handler>
Coro<Server> serve_streams_at_path(std::shared_ptr<Handler> handler, std::string path,
                                   ServerOptions options) {
    const Server server(new StreamServer<Handler>(get_running_loop(), options, std::move(handler)));
    co_return co_await bind_unix_and_start(server, std::move(path), options.sock());
}
template <class F> std::shared_ptr<std::decay_t<F>> handler_of(F&& handler) {
    return std::make_shared<std::decay_t<F>>(std::forward<F>(handler));
}

} // namespace detail

// Listens on a host and port, and calls handler(reader, writer) for each connection: a coroutine
// function, which runs as a task of its own; or a plain function. An empty host means every
// interface, of IPv4 and IPv6; port 0 any that is free, which server.sockets() tells. What a
// handler throws goes to the exception handler, and its connection is closed. Throws
// std::system_error if an address is taken, GaiError for a host that has no address.
// (asyncio.start_server)
template <detail::ConnectionHandler F>
ASYNCIO_CORO_WRAPPER Coro<Server> start_server(F&& handler, std::string host, int port,
                                               ServerOptions options = {}) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(F);
    std::vector<std::string> hosts;
    hosts.push_back(std::move(host));
    return detail::serve_streams_at_hosts(detail::handler_of(std::forward<F>(handler)),
                                          std::move(hosts), port, std::move(options));
}
// On several hosts.
template <detail::ConnectionHandler F>
ASYNCIO_CORO_WRAPPER Coro<Server> start_server(F&& handler, std::vector<std::string> hosts,
                                               int port, ServerOptions options = {}) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(F);
    return detail::serve_streams_at_hosts(detail::handler_of(std::forward<F>(handler)),
                                          std::move(hosts), port, std::move(options));
}
template <detail::ConnectionHandler F>
ASYNCIO_CORO_WRAPPER Coro<Server> start_server(F&& handler,
                                               std::initializer_list<std::string_view> hosts,
                                               int port, ServerOptions options = {}) {
    return start_server(std::forward<F>(handler),
                        std::vector<std::string>(hosts.begin(), hosts.end()), port,
                        std::move(options));
}
// With a socket of the caller's, in the options. Throws ValueError without one.
template <detail::ConnectionHandler F>
ASYNCIO_CORO_WRAPPER Coro<Server> start_server(F&& handler, ServerOptions options) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(F);
    return detail::serve_streams_at_hosts(detail::handler_of(std::forward<F>(handler)), {}, 0,
                                          std::move(options));
}
// The same on a Unix socket: a path, or an abstract name that begins with a zero byte.
// (asyncio.start_unix_server)
template <detail::ConnectionHandler F>
ASYNCIO_CORO_WRAPPER Coro<Server> start_unix_server(F&& handler, std::string path,
                                                    ServerOptions options = {}) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(F);
    return detail::serve_streams_at_path(detail::handler_of(std::forward<F>(handler)),
                                         std::move(path), std::move(options));
}

// Refused with a sentence.
template <int n = 0>
detail::Refused start_server(detail::AnyArgument, detail::AnyArgument = 0, detail::AnyArgument = 0,
                             detail::AnyArgument = 0) {
    static_assert(
        detail::never<n>,
        "start_server takes a handler, a host or several, a port, then ServerOptions; or a "
        "handler and ServerOptions().sock(socket). A handler is called with a "
        "StreamReader and a StreamWriter, and returns a coroutine without a result, or "
        "nothing: Coro<> handle(StreamReader reader, StreamWriter writer)");
    return {};
}
template <int n = 0>
detail::Refused start_unix_server(detail::AnyArgument, detail::AnyArgument = 0,
                                  detail::AnyArgument = 0) {
    static_assert(detail::never<n>,
                  "start_unix_server takes a handler, a path, then ServerOptions. A handler is "
                  "called with a StreamReader and a StreamWriter, and returns a coroutine without "
                  "a result, or nothing: Coro<> handle(StreamReader reader, StreamWriter writer)");
    return {};
}

ASYNCIO_END_NAMESPACE
