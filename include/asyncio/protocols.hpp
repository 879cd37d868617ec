// SPDX-License-Identifier: MIT
// Protocols: what is told of a connection, by callbacks.
//
//     struct Echo : asyncio::Protocol {
//         void connection_made(asyncio::Transport transport) override { transport_ = transport; }
//         void data_received(std::string_view data) override { transport_.write(data); }
//         asyncio::Transport transport_;
//     };
//
// A connection calls connection_made(), then data_received() any number of times, eof_received() at
// most once, and connection_lost() last; pause_writing() and resume_writing() by turns between
// these. All are called in the loop's thread and in the context in which the transport was made;
// none before another one is over, but for pause_writing() and resume_writing(), which a write()
// or a changed limit calls. The base classes do nothing in them.
//
// What data_received(), eof_received(), get_buffer() and buffer_updated() throw is reported to the
// exception handler (a std::system_error only in debug mode), and the transport is aborted with
// it; what the others throw is reported only. KeyboardInterrupt and SystemExit leave run_forever().
// (asyncio.protocols)
#pragma once

#include <asyncio/bytes.hpp>
#include <asyncio/detail/config.hpp>

#include <cstddef>
#include <exception>
#include <string_view>

ASYNCIO_BEGIN_NAMESPACE

class Transport;

// (asyncio.BaseProtocol)
class ASYNCIO_API BaseProtocol {
  public:
    BaseProtocol(const BaseProtocol&) = delete;
    BaseProtocol& operator=(const BaseProtocol&) = delete;
    virtual ~BaseProtocol();

    // First of all. To write, keep the transport. (BaseProtocol.connection_made)
    virtual void connection_made(Transport transport);
    // Last of all: why the connection was lost; null if it was closed or aborted by this side, or
    // ended by the peer. Not called if the loop is closed first. (BaseProtocol.connection_lost)
    virtual void connection_lost(std::exception_ptr exception);
    // The transport keeps more than its high-water mark, since the peer or the network is slow:
    // stop writing; and once it keeps no more than the low one, go on. Not called once it closes.
    // (BaseProtocol.pause_writing, BaseProtocol.resume_writing)
    virtual void pause_writing();
    virtual void resume_writing();

    // For the library: it is a BufferedProtocol, else a Protocol.
    bool is_buffered() const noexcept { return buffered_; }

  private:
    friend class Protocol;
    friend class BufferedProtocol;
    explicit BaseProtocol(bool buffered) noexcept : buffered_(buffered) {}

    const bool buffered_;
};

// Is given what was received. (asyncio.Protocol)
class ASYNCIO_API Protocol : public BaseProtocol {
  public:
    Protocol() noexcept : BaseProtocol(false) {}
    ~Protocol() override;

    // Some bytes, at least one, cut anywhere; good until the return. At most once a turn of the
    // loop for each transport, so that others run too. (Protocol.data_received)
    virtual void data_received(std::string_view data);
    // The peer has ended its side. False, and the transport closes; true, and this side may go on
    // writing until it calls close(). With TLS it closes in either case. (Protocol.eof_received)
    virtual bool eof_received();
};

// Says where to put what is received, which spares a copy. (asyncio.BufferedProtocol)
class ASYNCIO_API BufferedProtocol : public BaseProtocol {
  public:
    BufferedProtocol() noexcept : BaseProtocol(true) {}
    ~BufferedProtocol() override;

    // Room for what comes next, of any size but 0, which is a RuntimeError; it must stay where it
    // is until the next callback. The hint is how much there may be, -1 if that is not known.
    // (BufferedProtocol.get_buffer)
    virtual WritableBytes get_buffer(std::ptrdiff_t size_hint) = 0;
    // So many bytes, at least one, are in that buffer now. After a get_buffer() there may be none,
    // and then another one follows. (BufferedProtocol.buffer_updated)
    virtual void buffer_updated(std::size_t count);
    // As of Protocol. (BufferedProtocol.eof_received)
    virtual bool eof_received();
};

ASYNCIO_END_NAMESPACE
