// SPDX-License-Identifier: MIT
// One connection, as streams and transports share it: reading, writing, water marks, TLS, closing.
//
// Data is read when somebody wants it, and not before: what nobody reads stays in the kernel, and
// holds the peer back. What is written goes out at once, as far as the kernel takes it; the rest is
// kept, and goes out as the kernel takes more, also after close(). Closing ends reading at once and
// writing in order: what is kept, then the close_notify of TLS and the peer's, then the descriptor.
#pragma once

#include <asyncio/address.hpp>
#include <asyncio/bytes.hpp>
#include <asyncio/detail/byte_buffer.hpp>
#include <asyncio/detail/channel.hpp>
#include <asyncio/detail/frame_pool.hpp>
#include <asyncio/detail/tls.hpp>
#include <asyncio/detail/waiting.hpp>
#include <asyncio/exceptions.hpp>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// How much a reader looks through for the end of a line. Throws ValueError for 0.
inline std::size_t checked_limit(std::size_t limit) {
    if (limit == 0) throw ValueError("Limit cannot be <= 0");
    return limit;
}

// The connections of one server.
class ConnectionList;

// Closes a descriptor, unless somebody takes it before.
class ASYNCIO_API OwnedDescriptor {
  public:
    explicit OwnedDescriptor(int number) noexcept : number_(number) {}
    OwnedDescriptor(const OwnedDescriptor&) = delete;
    OwnedDescriptor& operator=(const OwnedDescriptor&) = delete;
    ~OwnedDescriptor();
    int take() noexcept { return std::exchange(number_, -1); }

  private:
    int number_;
};

class ASYNCIO_API Connection : public Channel, public Pooled {
  public:
    void retain() noexcept { ++references_; }
    void release() noexcept {
        if (--references_ == 0) delete this;
    }

    // --- reading ---

    enum class Got : std::uint8_t {
        data,
        blocked, // nothing now: wait for the channel to be readable; a turn, if it still is
        end,     // nothing more: the peer has ended, or this side has closed
        failed,  // read_error() says why
    };
    // More into received(). Throws std::bad_alloc.
    Got fill(std::size_t at_least = 1);
    // At least a byte into `into`, from received() if there is something, else without a detour.
    // Requires: `into` is not empty.
    Got read_into(std::span<char> into, std::size_t& count) {
        if (received_.empty() && !has(unreadable) && receive_now(into, count)) [[likely]]
            return Got::data;
        return read_slowly(into, count);
    }
    // A read would not have to wait, as far as is known without a system call.
    bool may_have_more() const noexcept {
        return believed(Direction::read) || !received_.empty() ||
               (tls_ != nullptr && tls_may_have_more_);
    }
    // read_into() and fill() in the case that is the way of every message: nothing was received
    // before, and an edge has come. False: there is nothing, or another case; they tell which.
    bool receive_now(std::span<char> into, std::size_t& count) {
        if (has(reads_slowly)) [[unlikely]]
            return false;
        const ssize_t result = io().calls().recv(descriptor_, into.data(), into.size(), 0);
        if (result <= 0) [[unlikely]] {
            nothing_received(result);
            return false;
        }
        count = static_cast<std::size_t>(result);
        if (count < into.size()) read_short();
        return true;
    }
    bool fill_now() {
        if (has(reads_slowly)) [[unlikely]] // it may be lost, and have no io()
            return false;
        char* block = io().take_block();
        std::size_t count = 0;
        if (!receive_now({block, Io::block_size}, count)) [[unlikely]] {
            io().give_block(block);
            return false;
        }
        received_.adopt(block, count);
        return true;
    }
    // What was received and nobody has taken. As long as that is nothing, it holds no memory.
    const ByteBuffer<Io>& received() const noexcept { return received_; }
    // Takes so many bytes out of it, which must be there.
    void consume(std::size_t count) noexcept {
        if (count == received_.size()) {
            received_.release(is_attached() ? &io() : nullptr);
        } else {
            received_.consume(count);
        }
    }
    // Nothing is left, and nothing will come.
    bool at_end() const noexcept {
        return received_.empty() && (peer_ended_ || closing_ || read_error_ != nullptr);
    }
    const std::exception_ptr& read_error() const noexcept { return read_error_; }

    // --- writing ---

    // Sends, or keeps, all of it. After close() or a failure it is dropped; after write_eof(), or
    // while the handshake of TLS is under way, throws RuntimeError. Throws std::bad_alloc.
    void write(std::string_view data) {
        if (has(unwritable | writes_slowly | keeps) || data.empty()) [[unlikely]] {
            write_slowly(data);
            return;
        }
        const ssize_t sent = io().calls().send(descriptor_, data.data(), data.size(), MSG_NOSIGNAL);
        if (sent != static_cast<ssize_t>(data.size())) [[unlikely]] {
            keep_rest(data, sent);
        }
    }
    void write(std::span<const ReadableBytes> parts);
    // Ends our side once everything is sent: the peer reads to its end, and may go on sending.
    // Throws RuntimeError with TLS, which has no such thing.
    void write_eof();
    bool can_write_eof() const noexcept { return tls_ == nullptr; }
    bool has_written_eof() const noexcept { return eof_wanted_; }

    // What is kept because the kernel would not take it.
    std::size_t write_buffer_size() const noexcept {
        return kept_.size() + (tls_ != nullptr ? tls_->output().size() : 0);
    }
    bool is_writing_paused() const noexcept { return has(paused); }
    // drain() has neither to wait nor to complain.
    bool is_drained() const noexcept { return !has(paused | complains); }
    // Pausing: above `high`; resuming: not above `low`. Throws ValueError unless high >= low.
    void set_write_buffer_limits(std::optional<std::size_t> high, std::optional<std::size_t> low);
    std::size_t low_water() const noexcept { return low_water_; }
    std::size_t high_water() const noexcept { return high_water_; }
    // Why writing has failed; null if it has not.
    const std::exception_ptr& write_error() const noexcept { return write_error_; }

    // --- closing ---

    void close() noexcept;
    // Drops what is kept, and closes in the next turn.
    void abort(std::exception_ptr why = nullptr) noexcept;
    bool is_closing() const noexcept { return closing_; }
    // The descriptor is closed.
    bool is_lost() const noexcept { return lost_; }
    // Why it was lost; null if that was in order.
    const std::exception_ptr& loss() const noexcept { return loss_; }

    // --- TLS ---

    // From now on everything goes through the session, beginning with what was received already and
    // nobody has read. What is kept unsent still goes out before, as it is. If the connection
    // speaks TLS already, this is spoken inside of it. Requires: no handshake is under way.
    void start_tls(std::unique_ptr<TlsSession> session, Delay shutdown_timeout);
    // Goes on with the handshake. data: it is done.
    Got handshake();
    TlsSession* tls() const noexcept { return tls_.get(); }
    bool is_in_handshake() const noexcept { return tls_ != nullptr && !handshake_over_; }

    // --- about it ---

    const Address& peername() const noexcept { return peer_; }
    Address sockname() const;
    // -1 once it is lost.
    int descriptor() const noexcept { return descriptor_; }

    // In a server's list.
    void join(ConnectionList& list) noexcept;

  protected:
    // Takes over the descriptor of a connected stream socket. Throws what attaching does; then it
    // is closed.
    Connection(EventLoop& loop, int descriptor, const Address& peer);
    ~Connection() override;

    // Hooks. None of them is called before the constructor has returned.
    virtual void writing_paused() {}
    virtual void writing_resumed() {}
    // The kernel takes nothing more; write_error() says why. Default: abort().
    virtual void writing_failed() noexcept;
    // close() or abort() was called: nothing is read any more.
    virtual void reading_stopped() noexcept {}
    // The descriptor is about to be closed, and nothing else happens any more. Called once, in a
    // turn of its own; not if the loop closes.
    virtual void connection_lost() {}
    // The loop is closed, and the descriptor with it.
    virtual void dropped() noexcept {}

    // In `flags` of Edges.
    static constexpr std::uint32_t reads_slowly = 1U << first_of_owner;  // TLS, ended, failed
    static constexpr std::uint32_t writes_slowly = 2U << first_of_owner; // the same of writing
    static constexpr std::uint32_t keeps = 4U << first_of_owner;     // what the kernel did not take
    static constexpr std::uint32_t complains = 8U << first_of_owner; // closing, or failed
    static constexpr std::uint32_t paused = 16U << first_of_owner;
    static constexpr unsigned first_of_stream = first_of_owner + 5;
    // There is nothing to be read before an edge comes, and none of these either.
    bool is_without_data(std::uint32_t others) const noexcept {
        return (flags & (unreadable | reads_slowly | others)) == unreadable &&
               !received_.has_memory();
    }

  private:
    // Waits to write on, and comes up once to end it all.
    class Sender final : public ChannelWaiter {
      public:
        explicit Sender(Connection& c) noexcept : ChannelWaiter(c.edges()), connection(c) {}
        void wait() noexcept;
        void come_up_soon() noexcept;
        void run() override;
        void discard() noexcept override;
        CancelOutcome try_cancel() noexcept override { return CancelOutcome::already_done; }
        Connection& connection;
    };
    // Waits for the peer's close_notify, for a time.
    class Closer final : public ChannelWaiter, public Timed {
      public:
        explicit Closer(Connection& c) noexcept : ChannelWaiter(c.edges()), connection(c) {}
        // For all of the closing.
        void limit(Delay timeout);
        void begin() noexcept;
        void end() noexcept;
        void run() override;
        void discard() noexcept override;
        CancelOutcome try_cancel() noexcept override { return CancelOutcome::already_done; }
        Connection& connection;

      private:
        void timed_out() override;
    };

    // What goes out next: with TLS, first what was written before it began.
    std::string_view unsent() const noexcept {
        return tls_ != nullptr && kept_.empty() ? tls_->output() : kept_.view();
    }
    void take_unsent(std::size_t count) noexcept;
    bool refuses_data() noexcept;
    void send_unsent() noexcept;
    void after_write();
    void update_water_marks();
    void send_eof() noexcept;
    // A call of the kernel's has failed with `error`.
    void went_wrong(int error, const char* what = "send to ") noexcept;
    void read_failed(std::exception_ptr error) noexcept;
    void write_failed(std::exception_ptr error) noexcept;
    void stop_using() noexcept;
    void advance_close() noexcept;
    TlsSession::Status go_on_with_end_of_tls() noexcept;
    bool begin_shutdown_timeout() noexcept;
    void lose() noexcept;
    void loop_closed() noexcept override;
    void close_descriptor() noexcept;
    void drop_unread() noexcept;
    // From the kernel. Requires: not `reads_slowly`.
    Got receive(std::span<char> into, std::size_t& count);
    // A call has given `result`, which is not positive: notes what follows from that.
    ASYNCIO_COLD void nothing_received(ssize_t result);
    Got read_slowly(std::span<char> into, std::size_t& count);
    void give_back_room() noexcept {
        if (received_.empty()) received_.release(is_attached() ? &io() : nullptr);
    }
    void write_slowly(std::string_view data);
    void keep_rest(std::string_view data, ssize_t sent);
    void keep(std::string_view data);
    void drop_kept() noexcept;
    void cut_off(bool has_begun) noexcept;
    Got read_tls(std::span<char> into, std::size_t& count);
    // As many records as there is room for, from what was fed and then from `ciphertext`.
    TlsSession::Status read_records(std::span<char> into, std::size_t& count,
                                    std::string_view ciphertext);
    // A block's worth of ciphertext from the kernel. data: go on, at the end too.
    Got receive_ciphertext(std::span<char> block, std::size_t& count);
    // The same, to the session.
    Got feed_tls();

    int descriptor_;
    std::uint32_t references_ = 1;
    Address peer_;
    bool peer_ended_ = false;
    bool eof_wanted_ = false; // write_eof() was called
    bool eof_sent_ = false;
    bool closing_ = false;
    bool finishing_ = false; // nothing but lose() is to come
    bool lost_ = false;
    bool shutdown_begun_ = false; // of TLS
    bool tcp_ended_ = false;      // below TLS
    bool handshake_over_ = false; // of TLS, and it has not failed
    bool tls_may_have_more_ = true;
    std::uint8_t dropped_writes_ = 0;
    bool tells_ = false;        // of one of them
    std::uint32_t answers_ = 0; // of TLS, in bytes, since nothing was unsent
    ByteBuffer<Io> received_;
    ByteBuffer<Io> kept_;
    std::size_t high_water_ = 64 * 1024;
    std::size_t low_water_ = 16 * 1024;
    std::exception_ptr read_error_;
    std::exception_ptr write_error_;
    std::exception_ptr loss_;
    std::unique_ptr<TlsSession> tls_;
    Delay shutdown_timeout_{0};
    Sender sender_{*this};
    Closer closer_{*this};

    friend class ConnectionList;
    ConnectionList* list_ = nullptr;
    Connection* next_in_list_ = nullptr;
    Connection* previous_in_list_ = nullptr;
};

class ASYNCIO_API ConnectionList {
  public:
    ConnectionList() = default;
    ConnectionList(const ConnectionList&) = delete;
    ConnectionList& operator=(const ConnectionList&) = delete;

    bool empty() const noexcept { return first_ == nullptr; }
    // Calls visit(connection) for each; it may close them.
    template <class Visit> void for_each(Visit visit) {
        for (Connection* connection = first_; connection != nullptr;) {
            Connection* next = connection->next_in_list_;
            visit(*connection);
            connection = next;
        }
    }

  protected:
    virtual ~ConnectionList();
    // The last one has left it.
    virtual void became_empty() noexcept = 0;

  private:
    friend class Connection;
    void leave(Connection& connection) noexcept;

    Connection* first_ = nullptr;
};

} // namespace detail
ASYNCIO_END_NAMESPACE
