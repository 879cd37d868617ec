// SPDX-License-Identifier: MIT
#include <asyncio/datagrams.hpp>
#include <asyncio/futures.hpp>

#include "datagram_calls.hpp"
#include "guarded.hpp"

#include <cerrno>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE
DatagramProtocol::~DatagramProtocol() = default;
// NOLINTBEGIN(performance-unnecessary-value-param): whoever overrides these wants to keep it
void DatagramProtocol::connection_made(DatagramTransport) {}
void DatagramProtocol::datagram_received(std::string_view, const Address&) {}
void DatagramProtocol::error_received(const std::system_error&) {}
void DatagramProtocol::connection_lost(std::exception_ptr) {}
// NOLINTEND(performance-unnecessary-value-param)
void DatagramProtocol::pause_writing() {}
void DatagramProtocol::resume_writing() {}

namespace detail {

// What a DatagramTransport points to. Counted: one reference for the loop until the transport is
// lost, one for each handle, and one for each node that comes up in the ready queue after that.
class DatagramTransportState final : public Pooled, public SocketOwner {
  public:
    DatagramTransportState(EventLoop& loop, Socket socket, const Address& remote,
                           std::shared_ptr<DatagramProtocol> protocol)
        : loop_(loop), context_{context_for(loop)}, socket_(std::move(socket)),
          channel_(socket_.state("create_datagram_endpoint")), protocol_(std::move(protocol)),
          sockname_(name_or_none([this] { return socket_.getsockname(); })),
          peername_(name_or_none([this] { return socket_.getpeername(); })),
          remote_(remote.family() != AF_UNSPEC ? remote : peername_) {
        loop.retain();
        try {
            channel_.attach(loop, channel_.descriptor());
        } catch (...) {
            loop.release();
            throw;
        }
        channel_.owner = this;
    }
    DatagramTransportState(const DatagramTransportState&) = delete;
    DatagramTransportState& operator=(const DatagramTransportState&) = delete;

    void retain() noexcept { ++references_; }
    void release() noexcept {
        if (--references_ == 0) delete this;
    }

    // The loop's reference is there from the beginning. Reading begins after connection_made(), and
    // after who made the transport was woken.
    Future<> start() {
        DatagramTransport self(this);
        Future<> waiter = create_future(loop_);
        try {
            loop_.call_soon([self] {
                const std::shared_ptr<DatagramProtocol> protocol = self.get_protocol();
                if (protocol != nullptr) protocol->connection_made(self);
            });
            loop_.call_soon([waiter]() mutable {
                if (!waiter.done()) waiter.set_result();
            });
            loop_.call_soon([self] {
                DatagramTransportState& state = self.state();
                if (!state.closing_) state.arm(state.reader_, Direction::read);
            });
        } catch (...) {
            let_go();
            throw;
        }
        return waiter;
    }

    void sendto(std::string_view data, const Address* address) {
        loop_.check_thread();
        if (remote_.family() != AF_UNSPEC) {
            if (address != nullptr && *address != remote_) {
                throw ValueError("Invalid address: this endpoint sends to " + remote_.text() +
                                 " only, not to " + address->text());
            }
        } else if (address == nullptr) {
            throw ValueError("sendto() needs an address: this endpoint has no remote_addr");
        }
        if (lost_ != 0) {
            if (lost_ < told_at) {
                ++lost_;
                return;
            }
            loop_.tell([this] {
                return ExceptionContext{.message = "sendto() was called again after the transport "
                                                   "was lost, and the data was dropped",
                                        .details = {{"transport", describe()}}};
            });
            return;
        }
        if (closed_behind_our_back()) return;
        Address to; // none if it is connected: then the kernel knows
        if (peername_.family() == AF_UNSPEC) to = address != nullptr ? *address : remote_;
        if (queue_.empty()) {
            try {
                if (send_one(channel_, loop_calls(), "sendto", data, to)) return;
            } catch (const std::system_error& error) {
                report_error(error);
                return;
            }
        }
        queue_.push_back({std::string(data), to});
        queued_size_ += data.size() + header_size;
        arm(writer_, Direction::write);
        maybe_pause();
    }

    void close() {
        loop_.check_thread();
        if (closing_) return;
        closing_ = true;
        reader_.retire();
        if (queue_.empty()) lose_soon(nullptr);
    }
    void abort() {
        loop_.check_thread();
        force_close(nullptr);
    }
    bool is_closing() const noexcept { return closing_; }

    void set_protocol(std::shared_ptr<DatagramProtocol> protocol) {
        if (protocol == nullptr) throw ValueError("set_protocol() needs a protocol, not null");
        if (held_) protocol_ = std::move(protocol);
    }
    const std::shared_ptr<DatagramProtocol>& protocol() const noexcept { return protocol_; }
    std::size_t write_buffer_size() const noexcept { return queued_size_; }
    std::pair<std::size_t, std::size_t> limits() const noexcept { return {low_, high_}; }
    void set_limits(std::optional<std::size_t> high, std::optional<std::size_t> low) {
        constexpr std::size_t usual = std::size_t{64} * 1024;
        const std::size_t new_high = high ? *high : low ? 4 * *low : usual;
        const std::size_t new_low = low.value_or(new_high / 4);
        if (new_high < new_low) {
            throw ValueError("high (" + std::to_string(new_high) + ") must be >= low (" +
                             std::to_string(new_low) + ")");
        }
        high_ = new_high;
        low_ = new_low;
        maybe_pause();
    }
    const Address& sockname() const noexcept { return sockname_; }
    const Address& peername() const noexcept { return peername_; }
    Socket& socket() noexcept { return socket_; }

    void loop_closed() noexcept override { let_go(); }

  private:
    static constexpr std::size_t header_size = 8;
    // LOG_THRESHOLD_FOR_CONNLOST_WRITES of asyncio: the loss itself counts for the first.
    static constexpr unsigned told_at = 5;

    // Waits for the socket; comes up in the ready queue.
    class Node final : public ChannelWaiter {
      public:
        Node(DatagramTransportState& state, void (*work)(DatagramTransportState&)) noexcept
            : ChannelWaiter(state.channel_.edges()), state_(state), work_(work) {}
        using ChannelWaiter::wait_a_turn;
        using ChannelWaiter::wait_for;

        void run() override {
            begin_run();
            const DatagramTransport keep(&state_);
            if (std::exchange(outlives_, false)) state_.release();
            state_.call(state_.context_, [this] { work_(state_); });
        }
        void run_in_debug() override {
            const DatagramTransport keep(&state_);
            state_.loop_.run_watched(
                [this] { run(); },
                [this] { return ExceptionContext{.message = state_.describe()}; });
        }
        void discard() noexcept override {
            begin_run();
            const DatagramTransport keep(&state_);
            if (std::exchange(outlives_, false)) state_.release();
            state_.let_go();
        }
        CancelOutcome try_cancel() noexcept override { return CancelOutcome::already_done; }

        // Nothing waits any more; what is in the ready queue keeps the state.
        void retire() noexcept {
            if (stop_waiting() || outlives_) return;
            outlives_ = true;
            state_.retain();
        }

      private:
        DatagramTransportState& state_;
        // No pointer to a member: GCC 12 evaluates a call by one wrongly for UBSan.
        void (*work_)(DatagramTransportState&);
        bool outlives_ = false;
    };

    // connection_lost() to come, in a turn of its own.
    class Loss final : public Runnable {
      public:
        explicit Loss(DatagramTransportState& state) noexcept : state_(state) {}
        void run() override {
            const DatagramTransport keep(&state_);
            state_.call(context, [this] { state_.lose(); });
        }
        void run_in_debug() override {
            const DatagramTransport keep(&state_);
            state_.loop_.run_watched(
                [this] { run(); },
                [this] { return ExceptionContext{.message = state_.describe()}; });
        }
        void discard() noexcept override { state_.let_go(); }
        bool keeps_order() const noexcept override { return true; }
        OwnContext context;

      private:
        DatagramTransportState& state_;
    };

    struct Queued {
        std::string data;
        Address address;
    };

    ~DatagramTransportState() {
        channel_.owner = nullptr;
        socket_.close();
        loop_.release();
    }

    template <class Get> static Address name_or_none(Get get) {
        try {
            return get();
        } catch (const std::system_error&) {
            return {};
        }
    }
    const SystemCalls& loop_calls() const { return loop_.backend_while_closing().calls(); }
    std::string describe() const {
        std::string text = "<DatagramTransport";
        if (closing_) text += " closing";
        if (sockname_.family() != AF_UNSPEC) text += " at " + sockname_.text();
        if (remote_.family() != AF_UNSPEC) text += " to " + remote_.text();
        return text + ">";
    }
    // Calls work(), which calls the user's.
    template <class Work> void call(OwnContext& context, Work work) {
        call_guarded(loop_, context, work, [this] {
            return ExceptionContext{.message = "Exception in callback",
                                    .exception = std::current_exception(),
                                    .details = {{"transport", describe()}}};
        });
    }
    void report_error(const std::system_error& error) {
        if (in_error_received_) {
            // It has sent again, and that has failed again: in a turn of its own, for the stack's
            // sake.
            const DatagramTransport self(this);
            loop_.call_soon([self, error] { self.state().report_error(error); });
            return;
        }
        const std::shared_ptr<DatagramProtocol> protocol = protocol_;
        if (protocol == nullptr) return; // lost meanwhile
        struct AtEnd {
            bool& flag;
            ~AtEnd() { flag = false; }
        } const at_end{in_error_received_};
        in_error_received_ = true;
        protocol->error_received(error);
    }
    // What fails pausing and resuming is told, and goes no further.
    template <class Call> void tell_protocol(Call call_it, const char* name) {
        const std::shared_ptr<DatagramProtocol> protocol = protocol_;
        try {
            call_it(*protocol);
        } catch (const KeyboardInterrupt&) {
            throw;
        } catch (const SystemExit&) {
            throw;
        } catch (...) {
            loop_.tell([&] {
                return ExceptionContext{.message = std::string("protocol.") + name + "() failed",
                                        .exception = std::current_exception(),
                                        .details = {{"transport", describe()}}};
            });
        }
    }
    void maybe_pause() {
        if (queued_size_ <= high_ || paused_ || lost_ != 0) return;
        paused_ = true;
        tell_protocol([](DatagramProtocol& protocol) { protocol.pause_writing(); },
                      "pause_writing");
    }
    void maybe_resume() {
        if (!paused_ || queued_size_ > low_ || lost_ != 0) return;
        paused_ = false;
        tell_protocol([](DatagramProtocol& protocol) { protocol.resume_writing(); },
                      "resume_writing");
    }

    // Of a failure that is no error of the system.
    void fatal_error(const char* message) {
        const std::exception_ptr failure = std::current_exception();
        force_close(failure);
        loop_.tell([&] {
            return ExceptionContext{
                .message = message, .exception = failure, .details = {{"transport", describe()}}};
        });
    }
    bool closed_behind_our_back() {
        if (socket_.is_open()) return false;
        force_close(make_system_error(EBADF, "DatagramTransport: the socket was closed meanwhile"));
        return true;
    }
    // Has the node come up again: by an edge, or in the next turn if the socket is believed to be
    // ready now.
    void arm(Node& node, Direction direction) noexcept {
        if (node.is_waiting()) return;
        if (!channel_.is_attached()) {
            force_close(nullptr);
        } else if (channel_.believed(direction) ||
                   (direction == Direction::read && channel_.may_have_errors)) {
            node.wait_a_turn();
        } else {
            node.wait_for(direction);
        }
    }

    void read_ready() {
        if (closing_ || closed_behind_our_back()) return;
        struct Again {
            DatagramTransportState& state;
            ~Again() {
                if (!state.closing_) state.arm(state.reader_, Direction::read);
            }
        } const again{*this};
        const IoBlock block(channel_.io());
        for (unsigned i = 0; i < Io::budget && !closing_; ++i) {
            if (!receive_next(block)) return;
        }
    }
    // Whether to go on at once.
    bool receive_next(const IoBlock& block) {
        std::string large;
        std::string_view data;
        Address address;
        try {
            if (closed_behind_our_back() ||
                !receive_whole(channel_, loop_calls(), "recvfrom", block, large, data, address))
                return false;
        } catch (const std::system_error& error) {
            report_error(error);
            return false;
        } catch (...) {
            fatal_error("Fatal read error on datagram transport");
            return false;
        }
        const std::shared_ptr<DatagramProtocol> protocol = protocol_;
        protocol->datagram_received(data, address);
        return true;
    }

    void write_ready() {
        if (lost_ != 0 || closed_behind_our_back()) return;
        struct Again {
            DatagramTransportState& state;
            ~Again() {
                if (state.lost_ != 0) return;
                if (!state.queue_.empty()) {
                    state.arm(state.writer_, Direction::write);
                } else if (state.closing_) { // an interrupt has left a callback
                    state.lose_soon(nullptr);
                }
            }
        } const again{*this};
        if (channel_.writes_later()) channel_.would_block(Direction::write);
        for (unsigned i = 0; i < Io::budget && !queue_.empty(); ++i) {
            if (!send_next()) break;
        }
        maybe_resume(); // may send
        if (lost_ == 0 && closing_ && queue_.empty()) {
            ++lost_;
            lose();
        }
    }
    // Whether to go on at once.
    bool send_next() {
        const auto drop = [this] {
            queued_size_ -= queue_.front().data.size() + header_size;
            queue_.pop_front();
        };
        const Queued& next = queue_.front();
        try {
            if (closed_behind_our_back() ||
                !send_one(channel_, loop_calls(), "sendto", next.data, next.address))
                return false;
        } catch (const std::system_error& error) {
            drop();
            report_error(error);
            return true;
        }
        drop();
        channel_.has_written();
        return true;
    }

    void lose_soon(std::exception_ptr why) noexcept {
        ++lost_;
        loss_ = std::move(why);
        loss_node_.context = {context_for(loop_)};
        loop_.core().ready.push(loss_node_);
    }
    void force_close(std::exception_ptr why) noexcept {
        if (lost_ != 0) return;
        queue_.clear();
        queued_size_ = 0;
        closing_ = true;
        reader_.retire();
        writer_.retire();
        lose_soon(std::move(why));
    }
    void lose() {
        struct AtEnd {
            DatagramTransportState& state;
            ~AtEnd() { state.let_go(); }
        } const at_end{*this};
        const std::shared_ptr<DatagramProtocol> protocol = protocol_;
        protocol->connection_lost(std::exchange(loss_, nullptr));
    }
    // The end: the loop's reference goes. Nothing is called any more.
    void let_go() noexcept {
        if (!std::exchange(held_, false)) return;
        closing_ = true;
        if (lost_ == 0) ++lost_;
        queue_.clear();
        queued_size_ = 0;
        reader_.retire();
        writer_.retire();
        socket_.close();
        {
            const std::shared_ptr<DatagramProtocol> protocol = std::exchange(protocol_, nullptr);
        } // its destructor may do anything
        release();
    }

    EventLoop& loop_;
    OwnContext context_;
    Socket socket_;
    SocketState& channel_;
    std::shared_ptr<DatagramProtocol> protocol_;
    Address sockname_;
    Address peername_;
    Address remote_;
    std::uint32_t references_ = 1;
    bool held_ = true; // by the loop
    bool closing_ = false;
    bool paused_ = false;
    bool in_error_received_ = false;
    unsigned lost_ = 0; // 0 until connection_lost() is to come; counts what is dropped then
    std::exception_ptr loss_;
    std::size_t high_ = std::size_t{64} * 1024;
    std::size_t low_ = std::size_t{16} * 1024;
    std::size_t queued_size_ = 0;
    std::deque<Queued> queue_;
    Node reader_{*this, [](DatagramTransportState& state) { state.read_ready(); }};
    Node writer_{*this, [](DatagramTransportState& state) { state.write_ready(); }};
    Loss loss_node_{*this};
};

Coro<DatagramTransport> start_datagram_transport(Socket socket, Address remote,
                                                 std::shared_ptr<DatagramProtocol> protocol) {
    if (protocol == nullptr)
        throw ValueError("the protocol factory of create_datagram_endpoint() gave null");
    EventLoop& loop = get_running_loop();
    auto* state = new DatagramTransportState(loop, std::move(socket), remote, std::move(protocol));
    DatagramTransport transport(state);
    Future<> waiter = state->start();
    try {
        co_await waiter;
    } catch (...) {
        transport.close();
        throw;
    }
    co_return transport;
}

} // namespace detail

DatagramTransport::DatagramTransport(detail::DatagramTransportState* state) noexcept
    : state_(state) {
    if (state_ != nullptr) state_->retain();
}
DatagramTransport::DatagramTransport(const DatagramTransport& other) noexcept
    : DatagramTransport(other.state_) {}
DatagramTransport::~DatagramTransport() {
    if (state_ != nullptr) state_->release();
}

detail::DatagramTransportState& DatagramTransport::state() const {
    if (state_ == nullptr) {
        throw RuntimeError("this DatagramTransport is of nothing: keep the one that "
                           "connection_made() or create_datagram_endpoint() gives");
    }
    return *state_;
}

void DatagramTransport::sendto(ReadableBytes data) const { state().sendto(data, nullptr); }
void DatagramTransport::sendto(ReadableBytes data, const Address& address) const {
    state().sendto(data, &address);
}
void DatagramTransport::close() const { state().close(); }
void DatagramTransport::abort() const { state().abort(); }
bool DatagramTransport::is_closing() const noexcept {
    return state_ == nullptr || state_->is_closing();
}
void DatagramTransport::set_protocol(std::shared_ptr<DatagramProtocol> protocol) const {
    state().set_protocol(std::move(protocol));
}
std::shared_ptr<DatagramProtocol> DatagramTransport::get_protocol() const {
    return state().protocol();
}
std::size_t DatagramTransport::get_write_buffer_size() const { return state().write_buffer_size(); }
std::pair<std::size_t, std::size_t> DatagramTransport::get_write_buffer_limits() const {
    return state().limits();
}
void DatagramTransport::set_write_buffer_limits(std::optional<std::size_t> high,
                                                std::optional<std::size_t> low) const {
    state().set_limits(high, low);
}
const Address& DatagramTransport::sockname() const { return state().sockname(); }
const Address& DatagramTransport::peername() const { return state().peername(); }
Socket& DatagramTransport::socket() const { return state().socket(); }

ASYNCIO_END_NAMESPACE
