// SPDX-License-Identifier: MIT
#include "transport_state.hpp"

#include <system_error>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

TransportState::TransportState(EventLoop& loop, int descriptor, const Address& peer,
                               AnyProtocol protocol, ContextRef context)
    : Connection(loop, descriptor, peer), protocol_(std::move(protocol)) {
    context_.variables = std::move(context);
}

void TransportState::start() { receiver_.come_up_soon(); }

void TransportState::start(std::unique_ptr<TlsSession> session, Delay handshake_timeout,
                           Delay shutdown_timeout) {
    start_tls(std::move(session), shutdown_timeout);
    arm(loop(), handshake_timeout);
    handshaking_ = true;
    receiver_.come_up_soon();
}

void TransportState::upgrade(std::unique_ptr<TlsSession> session, Delay handshake_timeout,
                             Delay shutdown_timeout, AnyProtocol protocol) {
    set_protocol(std::move(protocol));
    start_tls(std::move(session), shutdown_timeout);
    arm(loop(), handshake_timeout);
    handshaking_ = true;
    reading_ = true;
    receiver_.stop();
    if (!receiver_.is_waiting()) receiver_.come_up_soon();
}

// --- what the user asks for
// -----------------------------------------------------------------------

void TransportState::pause_reading() noexcept {
    reading_ = false;
    if (made_ && !handshaking_) receiver_.stop();
}

void TransportState::resume_reading() noexcept {
    reading_ = true;
    if (wants_data() && !receiver_.is_waiting()) receiver_.come_up_soon();
}

void TransportState::set_protocol(AnyProtocol protocol) {
    if (protocol == nullptr)
        throw ValueError("set_protocol() needs a protocol: to read nothing, call pause_reading()");
    if (!held_by_loop_) return;
    if (calls_ != 0) {
        replaced_.reserve(replaced_.size() + 1);
        replaced_.push_back(std::exchange(protocol_, std::move(protocol)));
    } else {
        protocol_.swap(protocol); // its destructor may do anything, so it comes last
    }
}

// --- callbacks
// ------------------------------------------------------------------------------------

TransportState::Calling::Calling(TransportState& state) : state_(state) {
    if (state.calls_++ == 0) scope_.emplace(state.loop(), state.context_);
}

TransportState::Calling::~Calling() {
    if (--state_.calls_ == 0 && !state_.replaced_.empty()) [[unlikely]]
        state_.drop_replaced();
}

void TransportState::drop_replaced() noexcept {
    const std::vector<AnyProtocol> replaced = std::move(replaced_);
    replaced_.clear();
}

template <class Work> bool TransportState::call(const char* message, Work work) {
    const Calling calling(*this);
    try {
        work();
        return true;
    } catch (const KeyboardInterrupt&) {
        throw;
    } catch (const SystemExit&) {
        throw;
    } catch (...) {
        fatal(message);
    }
    return false;
}

template <class Work> void TransportState::call_and_go_on(const char* message, Work work) {
    const Calling calling(*this);
    try {
        work();
    } catch (const KeyboardInterrupt&) {
        throw;
    } catch (const SystemExit&) {
        throw;
    } catch (...) {
        tell(message);
    }
}

void TransportState::tell(const char* message) {
    loop().tell([&] {
        return ExceptionContext{.message = message,
                                .exception = std::current_exception(),
                                .details = {{"transport", "connected to " + peername().text()}}};
    });
}

void TransportState::fatal(const char* message) {
    bool is_told = true;
    try {
        throw;
    } catch (const std::system_error&) {
        // As in asyncio: the network is like that, and connection_lost() is told.
        is_told = loop().get_debug();
    } catch (...) { // NOLINT(bugprone-empty-catch): told, whatever it is
    }
    abort(std::current_exception());
    if (is_told) tell(message);
}

void TransportState::make() {
    made_ = true;
    struct AtEnd {
        Arrival* arrival;
        ~AtEnd() {
            if (arrival != nullptr) arrival->come();
        }
    };
    // The one that waits for this: an eager start_tls() in the callback waits for more.
    const AtEnd at_end{std::exchange(arrival_, nullptr)};
    call_and_go_on("protocol.connection_made() failed; the transport goes on",
                   [this] { protocol_->connection_made(Transport(*this)); });
}

void TransportState::writing_paused() {
    if (!made_ || !held_by_loop_) return;
    call_and_go_on("protocol.pause_writing() failed", [this] { protocol_->pause_writing(); });
}

void TransportState::writing_resumed() {
    if (!made_ || !held_by_loop_) return;
    call_and_go_on("protocol.resume_writing() failed", [this] { protocol_->resume_writing(); });
}

void TransportState::connection_lost() {
    struct AtEnd {
        TransportState& state;
        ~AtEnd() { state.let_go(); }
    };
    const AtEnd at_end{*this};
    // In a shuffled loop this turn may come before that of connection_made().
    if (!made_ && tls() == nullptr) make();
    if (arrival_ != nullptr) {
        arrival_->come(loss() != nullptr
                           ? loss()
                           : make_system_error(ECONNRESET, "the connection to " +
                                                               peername().text() +
                                                               " was closed meanwhile"));
    }
    if (!made_) return;
    call_and_go_on("protocol.connection_lost() failed",
                   [this] { protocol_->connection_lost(loss()); });
}

void TransportState::let_go() noexcept {
    disarm();
    handshaking_ = false;
    const bool was_held = std::exchange(held_by_loop_, false);
    {
        const AnyProtocol protocol = std::move(protocol_);
        protocol_ = nullptr;
    }
    if (was_held) release();
}

// --- the handshake
// --------------------------------------------------------------------------------

void TransportState::go_on_with_handshake() {
    switch (handshake()) {
    case Got::data:
        handshaking_ = false;
        disarm();
        if (is_closing()) return; // what it sent last has failed: connection_lost() tells
        if (!made_) {
            make();
        } else if (arrival_ != nullptr) {
            arrival_->come();
        }
        return;
    case Got::blocked:
        return;
    case Got::failed:
        handshake_failed(read_error());
        return;
    case Got::end:
        break;
    }
    handshake_failed(write_error() != nullptr
                         ? write_error()
                         : make_system_error(ECONNRESET, "the TLS handshake with " +
                                                             peername().text() +
                                                             ": the connection was closed "
                                                             "meanwhile"));
}

void TransportState::timed_out() {
    if (!handshaking_) return;
    handshake_failed(
        std::make_exception_ptr(TimeoutError("the TLS handshake with " + peername().text() +
                                             " has not ended in time; see ssl_handshake_timeout")));
}

void TransportState::handshake_failed(std::exception_ptr why) noexcept {
    handshaking_ = false;
    disarm();
    const bool was_closing = is_closing();
    abort(why);
    if (arrival_ != nullptr) {
        arrival_->come(std::move(why));
    } else if (!made_ && !was_closing) {
        loop().report([&] {
            return ExceptionContext{.message = "the TLS handshake with a client failed",
                                    .exception = why,
                                    .details = {{"peer", peername().text()}}};
        });
    }
}

// --- receiving
// ------------------------------------------------------------------------------------

void TransportState::Receiver::come_up_soon() noexcept {
    state_.retain();
    wait_a_turn();
}

void TransportState::Receiver::discard() noexcept {
    begin_run();
    state_.release();
}

// On to the next wait, also after an exception that leaves run_forever().
void TransportState::Receiver::go_on() noexcept {
    TransportState& state = state_;
    const bool wants = state.handshaking_ || state.wants_data();
    if (wants && !is_waiting() && state.is_attached() && state.read_error() == nullptr) {
        state.retain();
        if (state.handshaking_ ? state.believed(Direction::read) : state.may_have_more()) {
            wait_a_turn();
        } else {
            wait_for(Direction::read);
        }
    }
    state.release();
}

void TransportState::Receiver::run() {
    begin_run();
    struct AtEnd {
        Receiver& receiver;
        ~AtEnd() { receiver.go_on(); }
    };
    const AtEnd at_end{*this};
    if (state_.is_lost()) return;
    try {
        if (state_.handshaking_) {
            state_.go_on_with_handshake();
        } else if (!state_.made_) {
            if (state_.tls() == nullptr) state_.make();
        } else if (state_.wants_data()) {
            state_.receive();
        }
    } catch (const KeyboardInterrupt&) {
        throw;
    } catch (const SystemExit&) {
        throw;
    } catch (...) { // there was no memory
        state_.fatal("Fatal read error on a transport");
    }
}

void TransportState::Receiver::run_in_debug() {
    if (!state_.is_attached()) { // it was lost meanwhile
        run();
        return;
    }
    state_.retain();
    struct Release {
        TransportState& state;
        ~Release() { state.release(); }
    };
    const Release at_end{state_};
    const std::string peer = state_.peername().text();
    state_.loop().run_watched(
        [this] { run(); },
        [&] { return ExceptionContext{.message = "the protocol of the connection to " + peer}; });
}

void TransportState::receive() {
    if (!may_have_more()) return;
    const Got got = protocol_->is_buffered() ? receive_into_buffer() : receive_block();
    if (is_closing()) return;
    if (got == Got::end) {
        ended();
    } else if (read_error() != nullptr) {
        abort(read_error());
    }
}

Connection::Got TransportState::receive_block() {
    const IoBlock block(io());
    std::size_t count = 0;
    const Got got = read_into(block.span(), count);
    // What TLS had to answer may have failed meanwhile.
    if (got == Got::data && !is_closing()) {
        call("Fatal error: protocol.data_received() call failed.", [&] {
            static_cast<Protocol&>(*protocol_).data_received({block.span().data(), count});
        });
    }
    return got;
}

Connection::Got TransportState::receive_into_buffer() {
    auto& protocol = static_cast<BufferedProtocol&>(*protocol_);
    Got got = Got::blocked;
    call("Fatal error: protocol.get_buffer() call failed.", [&] {
        const WritableBytes buffer = protocol.get_buffer(-1);
        if (buffer.empty()) throw RuntimeError("get_buffer() returned an empty buffer");
        // It may have closed, paused, or handed over to another one.
        if (!wants_data() || protocol_.get() != &protocol) return;
        std::size_t count = 0;
        got = read_into(buffer, count);
        if (got != Got::data || is_closing()) return;
        call("Fatal error: protocol.buffer_updated() call failed.",
             [&] { protocol.buffer_updated(count); });
    });
    return got;
}

void TransportState::ended() {
    ended_ = true;
    bool stays_open = false;
    call("Fatal error: protocol.eof_received() call failed.", [&] {
        stays_open = protocol_->is_buffered()
                         ? static_cast<BufferedProtocol&>(*protocol_).eof_received()
                         : static_cast<Protocol&>(*protocol_).eof_received();
    });
    if (!stays_open || tls() != nullptr) close();
}

TransportState& new_transport(EventLoop& loop, int descriptor, const Address& peer,
                              AnyProtocol protocol, ContextRef context) {
    OwnedDescriptor open(descriptor);
    auto* state = new TransportState(loop, open.take(), peer, std::move(protocol),
                                     std::move(context)); // taken once there is memory for it
    return *state;
}

} // namespace detail
ASYNCIO_END_NAMESPACE
