// SPDX-License-Identifier: MIT
#include <asyncio/detail/connection.hpp>

#include "is_a.hpp"
#include "stacked_tls.hpp"
#include "uninterrupted.hpp"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <new>
#include <sys/uio.h>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {
namespace {

constexpr std::size_t parts_at_once = 64;
// Of ciphertext that has nothing in it for who waits, from a peer that sends on and on: changes of
// keys, say, of which a block takes milliseconds. Then others have their turn.
constexpr int most_blocks_in_a_turn = 4;
// Of answers that a peer of TLS has asked for, and does not take.
constexpr std::size_t most_answers = std::size_t{64} * 1024;

} // namespace

OwnedDescriptor::~OwnedDescriptor() {
    if (number_ >= 0) current_system_calls().close(number_);
}

Connection::Connection(EventLoop& loop, int descriptor, const Address& peer)
    : descriptor_(descriptor), peer_(peer) {
    if (peer.family() != AF_INET && peer.family() != AF_INET6) set(reads_on);
    try {
        attach(loop, descriptor);
    } catch (...) {
        close_descriptor();
        throw;
    }
}

Connection::~Connection() {
    // Not lost, but forgotten by a loop that closes.
    if (list_ != nullptr) std::exchange(list_, nullptr)->leave(*this);
    close_descriptor();
    received_.release(nullptr);
    kept_.release(nullptr);
}

void Connection::close_descriptor() noexcept {
    if (descriptor_ < 0) return;
    const SystemCalls& calls = is_attached() ? io().calls() : current_system_calls();
    Io* blocks = is_attached() ? &io() : nullptr;
    if (blocks != nullptr && tls_ != nullptr) blocks->warm_sessions().forget(*tls_);
    detach();
    calls.close(std::exchange(descriptor_, -1)); // EINTR: on Linux it is closed all the same
    kept_.release(blocks);
    if (received_.empty()) received_.release(blocks);
}

Address Connection::sockname() const {
    sockaddr_storage storage{};
    socklen_t size = sizeof storage;
    if (!is_attached() ||
        io().calls().getsockname(descriptor_, reinterpret_cast<sockaddr*>(&storage), &size) != 0)
        return {};
    return Address(reinterpret_cast<sockaddr*>(&storage), size);
}

// --- reading

Connection::Got Connection::receive(std::span<char> into, std::size_t& count) {
    while (!has(unreadable)) {
        if (receive_now(into, count)) return Got::data;
        if (has(reads_slowly)) return read_error_ != nullptr ? Got::failed : Got::end;
    }
    return Got::blocked;
}

void Connection::nothing_received(ssize_t result) {
    if (result == 0) {
        set(reads_slowly);
        peer_ended_ = true;
        return;
    }
    const int error = errno; // before anything else can change it
    if (error == EINTR) return;
    if (error == EAGAIN) {
        would_block(Direction::read);
        return;
    }
    read_failed(make_system_error(error, "recv from " + peer_.text()));
}

Connection::Got Connection::fill(std::size_t at_least) {
    std::size_t count = 0;
    Got got = Got::blocked;
    if (has(reads_slowly)) [[unlikely]] {
        if (closing_ || peer_ended_) return Got::end;
        if (read_error_ != nullptr) return Got::failed;
        if (!believed(Direction::read) && !tls_may_have_more_) return Got::blocked;
        got = read_tls(received_.room(io(), at_least), count);
    } else {
        if (has(unreadable)) return Got::blocked;
        got = receive(received_.room(io(), at_least), count);
    }
    if (got == Got::data) received_.filled(count);
    give_back_room();
    return got;
}

Connection::Got Connection::read_slowly(std::span<char> into, std::size_t& count) {
    if (received_.empty()) {
        if (closing_ || peer_ended_) return Got::end;
        if (read_error_ != nullptr) return Got::failed;
        return tls_ != nullptr ? read_tls(into, count) : receive(into, count);
    }
    count = std::min(into.size(), received_.size());
    std::memcpy(into.data(), received_.view().data(), count);
    consume(count);
    return Got::data;
}

void Connection::read_failed(std::exception_ptr error) noexcept {
    read_error_ = std::move(error);
    set(reads_slowly | complains); // so does drain(), as in asyncio
}

// --- writing

bool Connection::refuses_data() noexcept {
    if (!closing_ && write_error_ == nullptr) [[likely]]
        return false;
    // As in asyncio, the first few pass without a word: whoever writes learns from drain(). The
    // fifth is told, and each that follows.
    constexpr std::uint8_t told_at = 5;
    if (dropped_writes_ < told_at && ++dropped_writes_ < told_at) return true;
    if (std::exchange(tells_, true)) return true; // the exception handler writes to it
    EventLoop::report(is_attached() ? &loop() : get_running_loop_or_null(), [this] {
        return ExceptionContext{
            .message = "writing to a connection that is closed: what is written is dropped; "
                       "await drain(), which says so, or ask is_closing()",
            .exception = write_error_,
            .details = {{"peer", peer_.text()}}};
    });
    tells_ = false;
    return true;
}

void Connection::keep(std::string_view data) {
    kept_.append(io(), data);
    set(keeps);
}

void Connection::drop_kept() noexcept {
    kept_.clear();
    clear(keeps);
}

void Connection::write_slowly(std::string_view data) {
    if (eof_wanted_) throw RuntimeError("Cannot call write() after write_eof()");
    if (refuses_data() || data.empty()) return;
    if (tls_ == nullptr) {
        keep(data);
    } else if (!handshake_over_) {
        throw RuntimeError("write() while the TLS handshake is under way: await it first");
    } else if (tls_->write(data) == TlsSession::Status::failed) {
        write_failed(tls_->error());
        return;
    } else {
        io().warm_sessions().used(*tls_);
        send_unsent();
    }
    after_write();
}

// Of data of which the kernel did not take all.
void Connection::keep_rest(std::string_view data, ssize_t sent) {
    if (sent < 0) {
        if (errno == EINTR) {
            write(data);
            return;
        }
        if (errno != EAGAIN) {
            went_wrong(errno);
            return;
        }
        sent = 0;
    }
    would_block(Direction::write);
    try {
        keep(data.substr(static_cast<std::size_t>(sent)));
    } catch (...) {
        cut_off(sent > 0);
        throw;
    }
    after_write();
}

// There is no memory for the rest of some data. If its beginning is on its way already, nothing can
// follow any more.
void Connection::cut_off(bool has_begun) noexcept {
    if (has_begun) write_failed(std::current_exception());
}

void Connection::write(std::span<const ReadableBytes> parts) {
    if (has(unwritable | writes_slowly | keeps) || parts.size() > parts_at_once) {
        for (const ReadableBytes& part : parts) write(part);
        return;
    }
    iovec pieces[parts_at_once];
    std::size_t total = 0;
    for (std::size_t i = 0; i < parts.size(); ++i) {
        pieces[i] = {const_cast<char*>(parts[i].data()), parts[i].size()};
        total += parts[i].size();
    }
    if (total == 0) return;
    msghdr message{};
    message.msg_iov = pieces;
    message.msg_iovlen = parts.size();
    const ssize_t result =
        uninterrupted([&] { return io().calls().sendmsg(descriptor_, &message, MSG_NOSIGNAL); });
    if (result == static_cast<ssize_t>(total)) return;
    if (result < 0 && errno != EAGAIN) {
        went_wrong(errno);
        return;
    }
    would_block(Direction::write);
    std::size_t sent = result > 0 ? static_cast<std::size_t>(result) : 0;
    try {
        static_cast<void>(kept_.room(io(), total - sent)); // for all of it, or for nothing
    } catch (...) {
        cut_off(sent > 0);
        throw;
    }
    for (std::string_view part : parts) {
        const std::size_t skipped = std::min(sent, part.size());
        part.remove_prefix(skipped);
        sent -= skipped;
        if (!part.empty()) keep(part);
    }
    after_write();
}

void Connection::take_unsent(std::size_t count) noexcept {
    if (tls_ != nullptr && kept_.empty()) {
        tls_->take_output(count);
    } else {
        kept_.consume(count);
        if (kept_.empty()) clear(keeps);
    }
}

void Connection::send_unsent() noexcept {
    for (std::string_view rest = unsent(); !rest.empty(); rest = unsent()) {
        if (!is_attached() || !believed(Direction::write)) return;
        const ssize_t result = uninterrupted(
            [&] { return io().calls().send(descriptor_, rest.data(), rest.size(), MSG_NOSIGNAL); });
        if (result < 0) {
            if (errno != EAGAIN) {
                went_wrong(errno);
                return;
            }
            would_block(Direction::write);
            return;
        }
        if (static_cast<std::size_t>(result) < rest.size()) would_block(Direction::write);
        take_unsent(static_cast<std::size_t>(result));
    }
}

void Connection::after_write() {
    if (unsent().empty() || write_error_ != nullptr) return;
    sender_.wait();
    update_water_marks();
}

void Connection::update_water_marks() {
    const std::size_t size = write_buffer_size();
    if (!has(paused) && size > high_water_) {
        set(paused);
        writing_paused();
    } else if (has(paused) && size <= low_water_) {
        clear(paused);
        if (!closing_) writing_resumed();
    }
}

void Connection::set_write_buffer_limits(std::optional<std::size_t> high,
                                         std::optional<std::size_t> low) {
    const std::size_t new_high = high.has_value()  ? *high
                                 : low.has_value() ? *low * 4
                                                   : std::size_t{64 * 1024};
    const std::size_t new_low = low.value_or(new_high / 4);
    if (new_high < new_low) {
        throw ValueError("the high-water mark (" + std::to_string(new_high) +
                         ") must not be below the low-water mark (" + std::to_string(new_low) +
                         ")");
    }
    high_water_ = new_high;
    low_water_ = new_low;
    update_water_marks();
}

void Connection::write_eof() {
    if (!can_write_eof()) {
        throw RuntimeError("write_eof() does not exist with TLS, which ends both sides at once: "
                           "call close()");
    }
    if (closing_ || eof_wanted_) return;
    eof_wanted_ = true;
    set(writes_slowly);
    if (unsent().empty() && write_error_ == nullptr) send_eof();
}

void Connection::send_eof() noexcept {
    eof_sent_ = true;
    if (io().calls().shutdown(descriptor_, SHUT_WR) != 0) went_wrong(errno, "shutdown of ");
}

void Connection::went_wrong(int error, const char* what) noexcept {
    try {
        write_failed(make_system_error(error, what + peer_.text()));
    } catch (...) { // no memory to say so
        write_failed(std::current_exception());
    }
}

void Connection::write_failed(std::exception_ptr error) noexcept {
    write_error_ = std::move(error);
    set(writes_slowly | complains);
    drop_kept();
    writing_failed();
}

// That the alert could not be sent is not what went wrong.
void Connection::writing_failed() noexcept {
    abort(read_error_ != nullptr ? read_error_ : write_error_);
}

// --- closing

void Connection::stop_using() noexcept {
    closing_ = true;
    set(reads_slowly | writes_slowly | complains);
}

void Connection::close() noexcept {
    if (closing_) return;
    stop_using();
    if (!is_attached()) return;
    wake(Direction::read);
    reading_stopped();
    advance_close();
}

void Connection::advance_close() noexcept {
    if (finishing_ || shutdown_begun_) return;
    const bool says_goodbye = tls_ != nullptr && handshake_over_ && read_error_ == nullptr;
    if (write_error_ == nullptr && !unsent().empty()) {
        sender_.wait();
        // A peer that takes nothing must not hold it open for ever either, nor one that has ended
        // without a close_notify.
        if (tls_ != nullptr && handshake_over_) begin_shutdown_timeout();
        return;
    }
    if (says_goodbye && write_error_ == nullptr) {
        shutdown_begun_ = true;
        const TlsSession::Status status = go_on_with_end_of_tls();
        if (finishing_) return;
        if (!unsent().empty() && write_error_ == nullptr) sender_.wait();
        if (status == TlsSession::Status::want_input && !tcp_ended_ && write_error_ == nullptr) {
            if (begin_shutdown_timeout()) closer_.begin();
            return;
        }
        if (!unsent().empty() && write_error_ == nullptr) { // the peer has ended, or been told why
            begin_shutdown_timeout();
            return;
        }
    }
    finishing_ = true;
    sender_.come_up_soon();
}

// As far as it goes: of TLS inside of TLS, one ends after the other.
TlsSession::Status Connection::go_on_with_end_of_tls() noexcept {
    const TlsSession::Status status = tls_->shutdown();
    send_unsent();
    // What else it may fail with is the peer's, of whom nothing is wanted any more.
    if (status == TlsSession::Status::failed && is_a<std::bad_alloc>(tls_->error()))
        abort(tls_->error());
    return status;
}

// Once. False: there was no memory for the timer, and it is aborted.
bool Connection::begin_shutdown_timeout() noexcept {
    try {
        closer_.limit(shutdown_timeout_);
        return true;
    } catch (...) {
        abort(std::current_exception());
        return false;
    }
}

void Connection::abort(std::exception_ptr why) noexcept {
    if (finishing_) return;
    struct Keep {
        Connection& connection;
        explicit Keep(Connection& c) noexcept : connection(c) { connection.retain(); }
        ~Keep() { connection.release(); }
    };
    const Keep keep(*this); // the closer may hold the last reference
    const bool was_closing = closing_;
    stop_using();
    finishing_ = true;
    loss_ = std::move(why);
    if (!is_attached()) return;
    closer_.end();
    drop_kept();
    if (!was_closing) {
        wake(Direction::read);
        reading_stopped();
    }
    sender_.come_up_soon();
}

// A socket that is closed with something unread resets the connection, and takes from the peer what
// that has not read yet, and believes to have been sent. So what has come is read, and dropped.
void Connection::drop_unread() noexcept {
    if (loss_ != nullptr || read_error_ != nullptr || write_error_ != nullptr) return;
    constexpr int most = 64; // a peer that sends on and on is reset
    char dropped[16 * 1024];
    for (int i = 0; i < most && is_attached() && !has(unreadable); ++i) {
        const ssize_t result = uninterrupted(
            [&] { return io().calls().recv(descriptor_, dropped, sizeof dropped, 0); });
        if (result <= 0) return;
        if (static_cast<std::size_t>(result) < sizeof dropped) read_short();
    }
}

void Connection::lose() noexcept {
    lost_ = true;
    stop_using();
    closer_.end();
    if (!peer_ended_ && !tcp_ended_) drop_unread();
    close_descriptor();
    if (list_ != nullptr) std::exchange(list_, nullptr)->leave(*this);
}

void Connection::loop_closed() noexcept {
    retain();
    finishing_ = true;
    lose();
    dropped();
    release();
}

void Connection::Sender::wait() noexcept {
    if (is_waiting()) return;
    connection.retain();
    wait_for(Direction::write);
}

void Connection::Sender::come_up_soon() noexcept {
    if (is_queued()) return;
    if (is_waiting()) {
        stop_waiting();
    } else {
        connection.retain();
    }
    wait_a_turn();
}

void Connection::Sender::discard() noexcept {
    begin_run();
    connection.release();
}

void Connection::Sender::run() {
    struct Release {
        Connection& connection;
        ~Release() { connection.release(); }
    };
    const Release at_end{connection};
    begin_run();
    Connection& c = connection;
    if (c.lost_) return;
    if (c.finishing_) {
        struct AtEnd {
            Connection& connection;
            ~AtEnd() { connection.lose(); }
        };
        const AtEnd lost{c};
        c.connection_lost();
        return;
    }
    c.send_unsent();
    if (c.write_error_ != nullptr) {
        if (c.shutdown_begun_) {
            c.abort(c.write_error_); // the peer does not answer what it does not get
        } else if (c.closing_) {
            c.advance_close();
        }
        return;
    }
    if (!c.unsent().empty()) {
        wait();
    } else {
        c.kept_.release(&c.io());
        c.clear(keeps);
        if (c.eof_wanted_ && !c.eof_sent_) {
            c.send_eof();
            if (c.finishing_) return;
        }
        if (c.shutdown_begun_ && !c.closer_.is_waiting()) {
            c.finishing_ = true;
            come_up_soon();
        } else if (c.closing_) {
            c.advance_close();
        }
    }
    c.update_water_marks();
}

// --- TLS

void Connection::start_tls(std::unique_ptr<TlsSession> session, Delay shutdown_timeout) {
    session->feed(received_.view());
    if (tls_ != nullptr) {
        auto stacked = std::make_unique<StackedTls>(std::move(tls_), std::move(session));
        if (is_attached()) io().warm_sessions().forget(stacked->outer());
        session = std::move(stacked);
    }
    tls_ = std::move(session);
    handshake_over_ = false;
    tls_may_have_more_ = true;
    set(reads_slowly | writes_slowly);
    shutdown_timeout_ = shutdown_timeout;
    consume(received_.size());
}

Connection::Got Connection::receive_ciphertext(std::span<char> block, std::size_t& count) {
    if (tcp_ended_) return Got::end;
    while (!has(unreadable)) {
        const ssize_t result = io().calls().recv(descriptor_, block.data(), block.size(), 0);
        if (result > 0) {
            count = static_cast<std::size_t>(result);
            if (count < block.size()) read_short();
            return Got::data;
        }
        if (result == 0) {
            tcp_ended_ = true;
            tls_->feed_eof();
            return Got::data; // the session says what that means
        }
        nothing_received(result);
        if (read_error_ != nullptr) return Got::failed;
    }
    return Got::blocked;
}

Connection::Got Connection::feed_tls() {
    if (!believed(Direction::read)) return tcp_ended_ ? Got::end : Got::blocked;
    const IoBlock block(io());
    std::size_t count = 0;
    const Got got = receive_ciphertext(block.span(), count);
    if (got == Got::data) tls_->feed({block.span().data(), count});
    return got;
}

TlsSession::Status Connection::read_records(std::span<char> into, std::size_t& count,
                                            std::string_view ciphertext) {
    const std::size_t unsent_before = tls_->output().size();
    if (unsent_before == 0) answers_ = 0;
    TlsSession::Status status;
    do {
        std::size_t more = 0;
        status = tls_->read(into.subspan(count), more, ciphertext);
        count += more;
    } while (status == TlsSession::Status::done && count < into.size());
    if (!ciphertext.empty()) {
        try {
            tls_->feed(ciphertext);
        } catch (...) { // nothing can follow; what came before is given
            read_failed(std::current_exception());
        }
    }
    tls_may_have_more_ = status != TlsSession::Status::want_input;
    if (status == TlsSession::Status::failed) {
        if (count != 0) return status; // what came before is given first; the session says it again
        read_failed(tls_->error());
    }
    // An answer to a change of keys, or an alert.
    if (!unsent().empty()) {
        answers_ += static_cast<std::uint32_t>(tls_->output().size() - unsent_before);
        send_unsent();
        if (!unsent().empty() && write_error_ == nullptr) {
            sender_.wait();
            if (answers_ > most_answers) {
                read_failed(make_system_error(
                    EPROTO, "TLS with " + peer_.text() +
                                ", which asks for new keys again and again and takes no answer"));
                return TlsSession::Status::failed;
            }
        }
    }
    return status;
}

Connection::Got Connection::read_tls(std::span<char> into, std::size_t& count) {
    count = 0;
    TlsSession::Status status = TlsSession::Status::want_input;
    if (tls_may_have_more_) status = read_records(into, count, {});
    for (int i = 0; count == 0 && status == TlsSession::Status::want_input; ++i) {
        if (closing_) return Got::end;
        if (!believed(Direction::read)) return tcp_ended_ ? Got::end : Got::blocked;
        if (i == most_blocks_in_a_turn) return Got::blocked;
        const IoBlock block(io());
        std::size_t received = 0;
        const Got got = receive_ciphertext(block.span(), received);
        if (got != Got::data) return got;
        status = read_records(into, count, {block.span().data(), received});
    }
    if (count != 0) {
        io().warm_sessions().used(*tls_);
        return Got::data; // the session says the rest once more
    }
    if (status == TlsSession::Status::closed) {
        peer_ended_ = true;
        return Got::end;
    }
    return Got::failed;
}

Connection::Got Connection::handshake() {
    if (closing_) return Got::end;
    for (int i = 0;; ++i) {
        const TlsSession::Status status = tls_->handshake();
        if (status == TlsSession::Status::failed) read_failed(tls_->error());
        send_unsent();
        if (is_attached()) after_write();
        switch (status) {
        case TlsSession::Status::done:
            handshake_over_ = true;
            if (is_attached()) io().warm_sessions().used(*tls_);
            return Got::data;
        case TlsSession::Status::closed:
            return Got::end;
        case TlsSession::Status::failed:
            return Got::failed;
        case TlsSession::Status::want_input:
            break;
        }
        if (closing_) return Got::end;
        if (i == most_blocks_in_a_turn) return Got::blocked;
        const Got got = feed_tls();
        if (got == Got::blocked &&
            write_error_ != nullptr) { // no answer comes to what was not sent
            read_failed(write_error_);
            return Got::failed;
        }
        if (got != Got::data) return got;
    }
}

void Connection::Closer::limit(Delay timeout) {
    if (!is_armed()) arm(connection.loop(), timeout);
}

void Connection::Closer::begin() noexcept {
    connection.retain();
    wait_a_turn(); // the peer may have closed already
}

void Connection::Closer::end() noexcept {
    disarm();
    if (is_waiting() && stop_waiting()) connection.release();
}

void Connection::Closer::discard() noexcept {
    begin_run();
    connection.release();
}

void Connection::Closer::run() {
    struct Release {
        Connection& connection;
        ~Release() { connection.release(); }
    };
    const Release at_end{connection};
    begin_run();
    Connection& c = connection;
    if (c.finishing_) return;
    try {
        for (int i = 0;; ++i) {
            const TlsSession::Status status = c.go_on_with_end_of_tls();
            if (c.finishing_) return;
            if (status != TlsSession::Status::want_input || c.write_error_ != nullptr) break;
            if (!c.unsent().empty()) c.sender_.wait();
            if (i == most_blocks_in_a_turn) {
                c.retain();
                wait_a_turn();
                return;
            }
            const Got got = c.feed_tls();
            if (got == Got::blocked) {
                c.retain();
                wait_for(Direction::read);
                return;
            }
            if (got != Got::data) break;
        }
    } catch (...) { // no memory for what the peer sends
        c.abort(std::current_exception());
        return;
    }
    if (!c.unsent().empty() && c.write_error_ == nullptr) {
        c.sender_.wait(); // our close_notify is still on its way
        return;
    }
    c.finishing_ = true;
    c.sender_.come_up_soon();
}

void Connection::Closer::timed_out() {
    connection.abort(std::make_exception_ptr(
        TimeoutError("SSL shutdown timed out: " + connection.peer_.text() +
                     " has not answered the end of TLS; see ssl_shutdown_timeout")));
}

// --- the connections of a server

void Connection::join(ConnectionList& list) noexcept {
    list_ = &list;
    previous_in_list_ = nullptr;
    next_in_list_ = list.first_;
    if (next_in_list_ != nullptr) next_in_list_->previous_in_list_ = this;
    list.first_ = this;
}

ConnectionList::~ConnectionList() {
    for_each([](Connection& connection) { connection.list_ = nullptr; });
}

void ConnectionList::leave(Connection& connection) noexcept {
    Connection* next = connection.next_in_list_;
    Connection* previous = connection.previous_in_list_;
    (previous != nullptr ? previous->next_in_list_ : first_) = next;
    if (next != nullptr) next->previous_in_list_ = previous;
    if (first_ == nullptr) became_empty();
}

} // namespace detail
ASYNCIO_END_NAMESPACE
