// SPDX-License-Identifier: MIT
// What a stream or a transport needs of TLS: a session that turns plain text into ciphertext and
// back, in memory, without I/O of its own. ssl.hpp has the one that is made of OpenSSL; the library
// with streams and transports in it does without.
#pragma once

#include <asyncio/clock.hpp>
#include <asyncio/detail/config.hpp>

#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

ASYNCIO_BEGIN_NAMESPACE
namespace ssl {
class Object;
class Session;
} // namespace ssl
namespace detail {

// One connection's TLS. The caller feeds what it received, calls a step, and sends what output()
// has, after every step, also a failed one (there may be an alert in it).
class ASYNCIO_API TlsSession {
  public:
    enum class Status {
        done,
        want_input, // nothing more without further ciphertext of the peer's
        closed,     // read(): the peer has ended its side in order, by close_notify
        failed,     // error() says why; the session is of no more use
    };

    virtual ~TlsSession();
    TlsSession(const TlsSession&) = delete;
    TlsSession& operator=(const TlsSession&) = delete;

    // The handshake, as far as it goes; a server's callbacks (SNI, ALPN) are called in it.
    virtual Status handshake() noexcept = 0;
    // Plain text into `into`, which is not empty; `count`: how much, more than 0 if done. There may
    // be more.
    virtual Status read(std::span<char> into, std::size_t& count) noexcept = 0;
    // The same, which spares a copy: what was fed comes first, then `ciphertext`, from whose front
    // it takes what it uses. The caller feeds what is left when it stops to read.
    virtual Status read(std::span<char> into, std::size_t& count,
                        std::string_view& ciphertext) noexcept = 0;
    // Encrypts; done: all of it is taken. Never wants input once the handshake is done.
    virtual Status write(std::string_view plain) noexcept = 0;
    // Ends our side by a close_notify (once). Done: the peer's has come too. What the peer still
    // sends before its own is dropped. While the handshake is not done there is nothing to end:
    // done at once, and the connection may be closed.
    virtual Status shutdown() noexcept = 0;

    // Ciphertext from the peer, copied as far as it is not used at once.
    virtual void feed(std::string_view ciphertext) = 0;
    // The peer has ended the connection below TLS: without a close_notify before it, what follows
    // what was fed fails as truncated.
    virtual void feed_eof() noexcept = 0;
    // Ciphertext to be sent, good until the next call; and how much of it was taken.
    virtual std::string_view output() const noexcept = 0;
    virtual void take_output(std::size_t count) noexcept = 0;

    // Gives back the memory that an idle connection does not need; it comes again by itself.
    virtual void release_memory() noexcept = 0;

    // After a failure; an ssl::Error, or what a callback of the user's threw.
    virtual std::exception_ptr error() const noexcept = 0;
    // What get_extra_info() gives: the peer's certificate, the cipher, ...
    virtual const ssl::Object& object() const noexcept = 0;

  protected:
    TlsSession() = default;

  private:
    friend class WarmSessions;
    std::size_t warm_place_ = 0; // among the loop's, from 1; 0: none
};

// The sessions of a loop that were used last. Only they keep the memory that an idle one can do
// without, which is some 34 KiB with OpenSSL, so that many idle connections hold little, and busy
// ones allocate nothing for a message.
class ASYNCIO_API WarmSessions {
  public:
    static constexpr std::size_t most = 128;

    WarmSessions() = default;
    WarmSessions(const WarmSessions&) = delete;
    WarmSessions& operator=(const WarmSessions&) = delete;

    void used(TlsSession& session) noexcept {
        if (session.warm_place_ == 0) [[unlikely]]
            add(session);
    }
    // Before its end.
    void forget(TlsSession& session) noexcept {
        if (session.warm_place_ != 0) sessions_[session.warm_place_ - 1] = nullptr;
        session.warm_place_ = 0;
    }

  private:
    ASYNCIO_COLD void add(TlsSession& session) noexcept;

    TlsSession* sessions_[most] = {};
    std::size_t next_ = 0;
};

// What makes them: an ssl::Context, seen from below. Counted by shared_ptr, since connections may
// outlive the Context.
class ASYNCIO_API TlsContext {
  public:
    virtual ~TlsContext();
    TlsContext(const TlsContext&) = delete;
    TlsContext& operator=(const TlsContext&) = delete;

    // A client's session for the server of this name (or address), which is checked as the context
    // says; empty: the context must not check it, else ValueError. With an earlier session, which
    // must be of this context and host (else ValueError), it tries to resume that.
    virtual std::unique_ptr<TlsSession> client(const std::string& server_hostname,
                                               const ssl::Session* session = nullptr) = 0;
    // A server's. Throws ssl::Error if there is no certificate.
    virtual std::unique_ptr<TlsSession> server() = 0;

  protected:
    TlsContext() = default;
};

// How long the beginning and the end of TLS may take, as options have it.
class ASYNCIO_API TlsTimeouts {
  public:
    // Throw ValueError unless it is positive.
    void set_handshake(Delay timeout) { handshake_ = checked("ssl_handshake_timeout", timeout); }
    void set_shutdown(Delay timeout) { shutdown_ = checked("ssl_shutdown_timeout", timeout); }
    Delay handshake() const noexcept { return handshake_.value_or(Delay(60)); }
    Delay shutdown() const noexcept { return shutdown_.value_or(Delay(30)); }
    // Of a connection without TLS: throws ValueError if one was set.
    void refuse() const;

  private:
    static Delay checked(const char* name, Delay timeout);

    std::optional<Delay> handshake_;
    std::optional<Delay> shutdown_;
};

} // namespace detail
ASYNCIO_END_NAMESPACE
