// SPDX-License-Identifier: MIT
// What a Transport points to: a connection whose events are a protocol's callbacks.
//
// The loop holds a reference until connection_lost() is over, and the receiver one while it waits
// or is queued, so that a callback may let go of everything that its user holds.
#pragma once

#include <asyncio/detail/connection.hpp>
#include <asyncio/detail/waiting.hpp>
#include <asyncio/protocols.hpp>
#include <asyncio/transports.hpp>

#include "guarded.hpp"

#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

class Arrival;

class TransportState final : public Connection, Timed {
  public:
    // Its callbacks run in the variables of `context`.
    TransportState(EventLoop& loop, int descriptor, const Address& peer, AnyProtocol protocol,
                   ContextRef context);

    // connection_made() comes in the next turn; with a session, after the handshake. What these
    // three throw leaves it of no use: abort it.
    void start();
    void start(std::unique_ptr<TlsSession> session, Delay handshake_timeout,
               Delay shutdown_timeout);
    // From now on TLS, for this protocol.
    void upgrade(std::unique_ptr<TlsSession> session, Delay handshake_timeout,
                 Delay shutdown_timeout, AnyProtocol protocol);
    bool is_handshaking() const noexcept { return handshaking_; }
    bool is_made() const noexcept { return made_; }

    void pause_reading() noexcept;
    void resume_reading() noexcept;
    bool is_reading() const noexcept { return reading_ && !is_closing(); }

    void set_protocol(AnyProtocol protocol);
    const AnyProtocol& protocol() const noexcept { return protocol_; }

    // Of start_tls(), as a stream keeps it.
    void connected_to(std::string host) { host_ = std::move(host); }
    void came_to_server() noexcept { is_server_ = true; }
    const std::string& host() const noexcept { return host_; }
    bool is_server() const noexcept { return is_server_; }

  private:
    friend class Arrival;

    // Waits for what is to be read, and comes up once for connection_made().
    class Receiver final : public ChannelWaiter {
      public:
        explicit Receiver(TransportState& state) noexcept
            : ChannelWaiter(state.edges()), state_(state) {}
        void come_up_soon() noexcept;
        // If it waits for the kernel; what is queued finds out by itself.
        void stop() noexcept {
            if (is_waiting() && stop_waiting()) state_.release();
        }
        void run() override;
        void run_in_debug() override;
        void discard() noexcept override;
        CancelOutcome try_cancel() noexcept override { return CancelOutcome::already_done; }

      private:
        void go_on() noexcept;
        TransportState& state_;
    };
    // While a callback runs: in the transport's context, unless another one called for it. What was
    // replaced meanwhile is kept so long.
    class Calling {
      public:
        explicit Calling(TransportState& state);
        Calling(const Calling&) = delete;
        Calling& operator=(const Calling&) = delete;
        ~Calling();

      private:
        TransportState& state_;
        std::optional<InCallback> scope_;
    };

    ~TransportState() override = default;

    bool wants_data() const noexcept {
        return made_ && reading_ && !ended_ && !handshaking_ && !is_closing();
    }
    void make();
    void go_on_with_handshake();
    void handshake_failed(std::exception_ptr why) noexcept;
    void receive();
    Got receive_block();
    Got receive_into_buffer();
    void ended();
    // Calls work(); what it throws is fatal. False then.
    template <class Work> bool call(const char* message, Work work);
    // The same, but it is told only.
    template <class Work> void call_and_go_on(const char* message, Work work);
    ASYNCIO_COLD void tell(const char* message);
    ASYNCIO_COLD void fatal(const char* message);
    void let_go() noexcept;
    ASYNCIO_COLD void drop_replaced() noexcept;

    void writing_paused() override;
    void writing_resumed() override;
    void connection_lost() override;
    void dropped() noexcept override { let_go(); }
    void timed_out() override;

    AnyProtocol protocol_;
    std::vector<AnyProtocol> replaced_;
    OwnContext context_;
    Receiver receiver_{*this};
    Arrival* arrival_ = nullptr;
    std::string host_;
    unsigned calls_ = 0; // callbacks under way, of which one may be inside another
    bool held_by_loop_ = true;
    bool made_ = false;
    bool handshaking_ = false;
    bool reading_ = true;
    bool ended_ = false; // eof_received() was called
    bool is_server_ = false;
};

// What a coroutine awaits: connection_made(), or the end of a handshake.
class Arrival {
  public:
    // Requires: nobody else waits for it, and a handle keeps it.
    explicit Arrival(TransportState& state) noexcept : state_(state) { state.arrival_ = this; }
    Arrival(const Arrival&) = delete;
    Arrival& operator=(const Arrival&) = delete;
    ~Arrival() {
        if (state_.arrival_ == this) state_.arrival_ = nullptr;
    }
    void come(std::exception_ptr why_not = nullptr) noexcept {
        failure = std::move(why_not);
        if (state_.arrival_ == this) state_.arrival_ = nullptr;
        gate.open();
    }

    Gate gate;
    std::exception_ptr failure;

  private:
    TransportState& state_;
};

// Takes over the descriptor, also if it throws. The reference is the loop's.
TransportState& new_transport(EventLoop& loop, int descriptor, const Address& peer,
                              AnyProtocol protocol, ContextRef context);

} // namespace detail
ASYNCIO_END_NAMESPACE
