// SPDX-License-Identifier: MIT
// A fuzzer for the reads of streams. The input is a program: what arrives in which pieces, which
// reads are awaited, in which turn one is cancelled, where the end or a reset comes. A reference
// model, written down from the rules of CPython's streams.py and nothing cleverer than std::string,
// says what each read must give and what must be left.
//
// The kernel is played by a table of system calls that knows one descriptor and notes what each
// recv() gave, so that the model sees what the stream saw. Three things are checked beside the
// results: the buffer after each read, so that no byte is lost or doubled by a cancel; that a read
// which has enough asks for no more; and that none sleeps while there is something for it.
#include <asyncio/asyncio.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <netinet/in.h>
#include <optional>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <system_error>
#include <utility>
#include <vector>

using asyncio::Coro;
using asyncio::StreamReader;
using asyncio::SystemCalls;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

[[noreturn]] void fail(const std::string& what) {
    std::fprintf(stderr, "fuzz streams: %s\n", what.c_str());
    std::abort();
}

std::string shown(std::string_view bytes) {
    std::string text = std::to_string(bytes.size()) + " bytes \"";
    for (const char byte : bytes.substr(0, 60)) {
        if (byte >= ' ' && byte <= '~' && byte != '\\') {
            text += byte;
        } else {
            char code[8];
            std::snprintf(code, sizeof code, "\\x%02x",
                          static_cast<unsigned>(static_cast<unsigned char>(byte)));
            text += code;
        }
    }
    return text + (bytes.size() > 60 ? "\"..." : "\"");
}

// --- the kernel

// What one recv() gave; or that this side has closed.
struct Event {
    enum Kind { data, end, reset, close };
    Kind kind;
    std::string bytes;
};

struct Kernel {
    bool tcp = false; // a read gets all there is, as far as it asks; else a piece at a time
    std::deque<std::string> pieces;
    bool ended = false;
    bool was_reset = false;
    bool interrupt = false; // the next recv()
    bool attached = false;
    bool edge = false;
    epoll_data_t watched{};
    std::vector<Event> seen;

    // An edge brings what was there before along.
    bool is_drained() const { return pieces.empty() && !ended && !was_reset; }
};
Kernel* kernel = nullptr;

// A socket, so that the library may ask what it is; nothing is sent over it.
int the_descriptor() {
    static const int descriptor = [] {
        std::array<int, 2> ends{};
        if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends.data()) != 0)
            fail("no socketpair");
        return ends[0];
    }();
    return descriptor;
}

const SystemCalls& real() { return SystemCalls::real(); }

// What a broken stream would do, to see that it is noticed: ASYNCIO_FUZZ_BREAK=lose, or =sleep.
bool breaks_by(const char* what) {
    static const char* const variable = std::getenv("ASYNCIO_FUZZ_BREAK");
    return variable != nullptr && std::strcmp(variable, what) == 0;
}

ssize_t fake_recv(int descriptor, void* buffer, std::size_t size, int flags) {
    if (descriptor != the_descriptor()) return real().recv(descriptor, buffer, size, flags);
    Kernel& k = *kernel;
    if (size == 0) fail("recv() into no room");
    if (std::exchange(k.interrupt, false)) {
        errno = EINTR;
        return -1;
    }
    if (k.pieces.empty()) {
        if (std::exchange(k.was_reset, false)) {
            k.seen.push_back({Event::reset, {}});
            errno = ECONNRESET;
            return -1;
        }
        if (k.ended) {
            k.seen.push_back({Event::end, {}});
            return 0;
        }
        errno = EAGAIN;
        return -1;
    }
    std::string got;
    do {
        std::string& piece = k.pieces.front();
        const std::size_t count = std::min(piece.size(), size - got.size());
        got.append(piece, 0, count);
        piece.erase(0, count);
        if (piece.empty()) k.pieces.pop_front();
    } while (k.tcp && got.size() < size && !k.pieces.empty());
    std::memcpy(buffer, got.data(), got.size());
    const bool loses = got.size() > 20 && breaks_by("lose");
    const auto count = static_cast<ssize_t>(got.size()) - (loses ? 1 : 0);
    k.seen.push_back({Event::data, std::move(got)});
    return count;
}

int fake_epoll_ctl(int epoll, int operation, int descriptor, epoll_event* event) {
    if (descriptor != the_descriptor())
        return real().epoll_ctl(epoll, operation, descriptor, event);
    kernel->attached = operation != EPOLL_CTL_DEL;
    kernel->edge = kernel->attached;
    if (kernel->attached) kernel->watched = event->data;
    return 0;
}

int told(epoll_event* events) {
    Kernel& k = *kernel;
    if (!k.attached || !std::exchange(k.edge, false)) return 0;
    if (k.ended && breaks_by("sleep")) return 0;
    std::uint32_t state = EPOLLOUT;
    if (!k.is_drained()) state |= EPOLLIN;
    if (k.ended) state |= EPOLLRDHUP;
    if (k.was_reset) state |= EPOLLERR | EPOLLHUP | EPOLLRDHUP;
    events[0] = {.events = state, .data = k.watched};
    return 1;
}
int fake_epoll_wait(int epoll, epoll_event* events, int capacity, int timeout) {
    if (told(events) != 0) return 1;
    return real().epoll_wait(epoll, events, capacity, timeout);
}
int fake_epoll_pwait2(int epoll, epoll_event* events, int capacity, const timespec* timeout,
                      const sigset_t* mask) {
    if (told(events) != 0) return 1;
    return real().epoll_pwait2(epoll, events, capacity, timeout, mask);
}
int fake_getpeername(int descriptor, sockaddr* address, socklen_t* size) {
    if (descriptor != the_descriptor() || !kernel->tcp)
        return real().getpeername(descriptor, address, size);
    sockaddr_in peer{};
    peer.sin_family = AF_INET;
    peer.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    peer.sin_port = htons(9);
    std::memcpy(address, &peer, std::min<std::size_t>(*size, sizeof peer));
    *size = sizeof peer;
    return 0;
}
int fake_setsockopt(int descriptor, int level, int option, const void* value, socklen_t size) {
    if (descriptor == the_descriptor()) return 0;
    return real().setsockopt(descriptor, level, option, value, size);
}
int fake_shutdown(int descriptor, int how) {
    return descriptor == the_descriptor() ? 0 : real().shutdown(descriptor, how);
}
int fake_close(int descriptor) {
    return descriptor == the_descriptor() ? 0 : real().close(descriptor);
}

const SystemCalls& table() {
    static const SystemCalls calls = [] {
        SystemCalls made = real();
        made.recv = fake_recv;
        made.epoll_ctl = fake_epoll_ctl;
        made.epoll_wait = fake_epoll_wait;
        made.epoll_pwait2 = fake_epoll_pwait2;
        made.getpeername = fake_getpeername;
        made.setsockopt = fake_setsockopt;
        made.shutdown = fake_shutdown;
        made.close = fake_close;
        return made;
    }();
    return calls;
}

// --- reads, and what comes of them

struct Read {
    enum Kind { some, all, into, exactly, until, until_several, line, next, peek, kinds };
    Kind kind = some;
    std::size_t size = 0;
    std::vector<std::string> separators;

    std::string text() const {
        constexpr std::array names = {
            "read",      "read to the end",      "read_into", "readexactly",
            "readuntil", "readuntil of several", "readline",  "next",
            "peek"};
        std::string text = names.at(kind);
        text += "(" + std::to_string(size);
        for (const std::string& separator : separators) text += ", " + shown(separator);
        return text + ")";
    }
};

struct Outcome {
    enum Kind { waits, value, nothing, cancelled, incomplete, overrun, value_error, reset, other };
    Kind kind = waits;
    std::string bytes; // of the value, or partial
    std::string message;
    std::size_t consumed = 0;
    std::optional<std::size_t> expected;

    bool operator==(const Outcome&) const = default;
    std::string text() const {
        constexpr std::array names = {"waits",
                                      "a value",
                                      "nothing",
                                      "CancelledError",
                                      "IncompleteReadError",
                                      "LimitOverrunError",
                                      "ValueError",
                                      "ECONNRESET",
                                      "another error"};
        return std::string(names.at(kind)) + " " + shown(bytes) + " '" + message +
               "' consumed=" + std::to_string(consumed) +
               " expected=" + (expected.has_value() ? std::to_string(*expected) : "none");
    }
};

// --- the model

class Model {
  public:
    explicit Model(std::size_t limit) : limit_(limit) {}

    std::string buffer;

    // What a read must give that sees these events; `used`: how many of them it needs.
    Outcome read(const Read& read, const std::vector<Event>& events, std::size_t& used) {
        used = 0;
        // A close before the first byte may have come before the read's first step too.
        while (used < events.size() && events[used].kind == Event::close) see(events[used++]);
        for (;;) {
            if (std::optional<Outcome> outcome = try_read(read)) return *outcome;
            if (const std::optional<Outcome> outcome = at_end(read); outcome.has_value())
                return *outcome;
            if (used == events.size()) return {};
            see(events[used++]);
        }
    }

    void see(const Event& event) {
        if (closed_) return; // what still comes is dropped
        switch (event.kind) {
        case Event::data:
            buffer += event.bytes;
            break;
        case Event::end:
            ended_ = true;
            break;
        case Event::reset:
            reset_ = true;
            break;
        case Event::close:
            closed_ = true;
            break;
        }
    }

    bool is_closed() const noexcept { return closed_; }

  private:
    static Outcome value(std::string bytes) {
        return {Outcome::value, std::move(bytes), {}, 0, {}};
    }
    std::string take(std::size_t count) {
        std::string taken = buffer.substr(0, count);
        buffer.erase(0, count);
        return taken;
    }
    // With what is there.
    std::optional<Outcome> try_read(const Read& read) {
        switch (read.kind) {
        case Read::some:
        case Read::into:
            if (read.size == 0) return value("");
            if (!buffer.empty()) return value(take(read.size));
            return std::nullopt;
        case Read::all:
            return std::nullopt;
        case Read::exactly:
            if (buffer.size() >= read.size) return value(take(read.size));
            return std::nullopt;
        case Read::peek:
            if (buffer.size() >= read.size) return value(buffer);
            return std::nullopt;
        case Read::until:
        case Read::until_several:
            return until(read.separators);
        case Read::line:
        case Read::next:
            return line();
        case Read::kinds:
            break;
        }
        fail("no such read");
    }

    // streams.py, readuntil()
    std::optional<Outcome> until(const std::vector<std::string>& separators) {
        std::vector<std::string> sorted = separators;
        // By length; which of several equally long ones comes first makes no difference, since only
        // one of them can end at the same place, or they are the same.
        std::sort(sorted.begin(), sorted.end(),
                  [](const auto& a, const auto& b) { return a.size() < b.size(); });
        if (sorted.front().empty()) {
            return Outcome{
                Outcome::value_error, {}, "Separator should be at least one-byte string", 0, {}};
        }
        std::optional<std::size_t> match_end;
        std::size_t match_start = 0;
        for (const std::string& separator : sorted) {
            const std::size_t found = buffer.find(separator);
            if (found == std::string::npos) continue;
            if (!match_end.has_value() || found + separator.size() < *match_end) {
                match_end = found + separator.size();
                match_start = found;
            }
        }
        if (match_end.has_value()) {
            if (match_start > limit_)
                return overrun("Separator is found, but chunk is longer than limit", match_start);
            return value(take(*match_end));
        }
        const std::size_t longest = sorted.back().size();
        const std::size_t offset =
            buffer.size() + 1 > longest ? buffer.size() + 1 - longest : std::size_t{0};
        if (offset > limit_)
            return overrun("Separator is not found, and chunk exceed the limit", offset);
        return std::nullopt;
    }
    static Outcome overrun(const char* message, std::size_t consumed) {
        return {Outcome::overrun, {}, message, consumed, {}};
    }

    // streams.py, readline()
    std::optional<Outcome> line() {
        std::optional<Outcome> outcome = until({"\n"});
        if (!outcome.has_value() || outcome->kind != Outcome::overrun) return outcome;
        if (buffer.compare(outcome->consumed, 1, "\n") == 0) {
            buffer.erase(0, outcome->consumed + 1);
        } else {
            buffer.clear();
        }
        return Outcome{Outcome::value_error, {}, outcome->message, 0, {}};
    }

    // No more will come.
    std::optional<Outcome> at_end(const Read& read) {
        if (!closed_ && !ended_) {
            if (!reset_) return std::nullopt;
            return Outcome{Outcome::reset, {}, {}, 0, {}};
        }
        switch (read.kind) {
        case Read::exactly:
            return Outcome{Outcome::incomplete, take(buffer.size()), {}, 0, read.size};
        case Read::until:
        case Read::until_several:
            return Outcome{Outcome::incomplete, take(buffer.size()), {}, 0, {}};
        case Read::next:
            if (buffer.empty()) return Outcome{Outcome::nothing, {}, {}, 0, {}};
            return value(take(buffer.size()));
        case Read::peek:
            return value(buffer);
        default:
            return value(take(buffer.size()));
        }
    }

    std::size_t limit_;
    bool ended_ = false;
    bool reset_ = false;
    bool closed_ = false;
};

// --- the run of one input

class Input {
  public:
    Input(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
    bool empty() const { return size_ == 0; }
    std::uint8_t byte() {
        if (size_ == 0) return 0;
        --size_;
        return *data_++;
    }
    // Small ones often, large ones sometimes.
    std::size_t length() {
        const std::size_t first = byte();
        if (first < 0xe0) return first % 24;
        return first < 0xf8 ? byte() : std::size_t{byte()} * 700;
    }
    std::string bytes(std::size_t count) {
        std::string made;
        made.reserve(count);
        const std::size_t given = std::min(count, size_);
        for (std::size_t i = 0; i < given && i < 64; ++i) {
            // Few letters, so that separators come up.
            const std::uint8_t one = byte();
            made += one < 0xf0 ? "ab\n\r;x"[one % 6] : static_cast<char>(one);
        }
        if (made.empty()) made = "a";
        while (made.size() < count) made.append(made, 0, count - made.size());
        return made;
    }

  private:
    const std::uint8_t* data_;
    std::size_t size_;
};

Coro<> perform(StreamReader reader, const Read* read, Outcome* outcome);

class Run {
  public:
    Run(const std::uint8_t* data, std::size_t size) : input_(data, size) {
        const std::uint8_t first = input_.byte();
        kernel_.tcp = (first & 1) != 0;
        limit_ = (first & 2) != 0 ? 1 + (first >> 2) % 16 : 64 * 1024;
        model_.emplace(limit_);
        kernel = &kernel_;
    }

    Coro<> operator()() {
        auto streams = co_await asyncio::open_connection(
            asyncio::ConnectionOptions()
                .sock(asyncio::Socket::from_descriptor(the_descriptor()))
                .limit(limit_));
        auto& [reader, writer] = streams;
        reader_ = &reader;
        writer_ = &writer;
        co_await asyncio::sleep(0);
        while (!input_.empty()) {
            const unsigned turns = step();
            for (unsigned i = 0; i < turns; ++i) {
                co_await asyncio::sleep(0);
                ++turns_since_begin_;
                ++turns_since_news_;
            }
            look();
        }
        // To the end: what waits still gets it, and then all that is left.
        if (!was_reset_) kernel_.ended = true;
        news();
        for (int i = 0; i < 4; ++i) co_await asyncio::sleep(0);
        turns_since_begin_ += 4;
        look();
        if (reading_) fail(read_.text() + " still waits, though the end has come");
        read_ = {Read::all, 0, {}};
        begin();
        for (int i = 0; i < 4; ++i) co_await asyncio::sleep(0);
        look();
        if (reading_) fail("the last read waits, though the end has come");
        if (!closed_ && !kernel_.pieces.empty() && !was_reset_)
            fail("the end was read before what had come earlier");
        writer.abort();
    }

  private:
    // One instruction; gives how many turns to take before anything else happens.
    unsigned step() {
        const std::uint8_t what = input_.byte();
        unsigned turns = (what >> 4) & 3;
        switch (what & 15) {
        case 0:
        case 1:
        case 2:
        case 3:
            arrive();
            break;
        case 4:
        case 5:
        case 6:
        case 7:
        case 8:
            if (reading_) {
                if (read_beside()) turns = std::max(turns, 1U);
            } else {
                read();
            }
            break;
        case 9:
        case 10:
            if (reading_) {
                task_.cancel();
                cancel_asked_ = true;
            }
            break;
        case 11:
            kernel_.interrupt = true;
            news(); // of which nothing is true
            break;
        case 12:
            if ((what & 0x80) != 0) {
                kernel_.ended = !was_reset_;
                news();
            }
            break;
        case 13:
            if ((what & 0xc0) == 0xc0 && !kernel_.ended && !was_reset_) {
                kernel_.was_reset = was_reset_ = true;
                news();
            }
            break;
        case 14:
            if ((what & 0xc0) == 0xc0) {
                writer_->close();
                closed_ = true;
                turns_since_news_ = 0;
                if (reading_) {
                    kernel_.seen.push_back({Event::close, {}});
                } else {
                    model_->see({Event::close, {}});
                }
            }
            break;
        default:
            consume();
            break;
        }
        return turns;
    }

    void arrive() {
        const std::size_t count = input_.length();
        if (count == 0 || kernel_.ended || was_reset_) return;
        kernel_.pieces.push_back(input_.bytes(count));
        news();
    }
    void news() {
        kernel_.edge = true;
        turns_since_news_ = 0;
    }

    void read() {
        read_ = {};
        read_.kind = static_cast<Read::Kind>(input_.byte() % Read::kinds);
        if (read_.kind == Read::until || read_.kind == Read::until_several) {
            const unsigned count = read_.kind == Read::until ? 1 : 1 + input_.byte() % 3;
            for (unsigned i = 0; i < count; ++i) {
                const std::uint8_t length = input_.byte();
                read_.separators.push_back(length < 4 ? std::string()
                                                      : input_.bytes(1 + length % 3));
            }
        } else if (read_.kind != Read::all && read_.kind != Read::line &&
                   read_.kind != Read::next) {
            read_.size = input_.length();
        }
        begin();
    }

    void begin() {
        kernel_.seen.clear();
        outcome_ = {};
        cancel_asked_ = false;
        reading_ = true;
        turns_since_begin_ = 0;
        task_ = asyncio::create_task(perform(*reader_, &read_, &outcome_));
    }

    // A second read, while one certainly waits, is refused, and the first does not notice.
    bool read_beside() {
        if (turns_since_begin_ < 2 || turns_since_news_ < 2 || !kernel_.is_drained() ||
            cancel_asked_ || task_.done())
            return false;
        beside_outcome_ = {};
        beside_ = asyncio::create_task(perform(*reader_, &beside_read_, &beside_outcome_));
        has_beside_ = true;
        return true;
    }

    void consume() {
        const std::size_t count = input_.length();
        if (reading_) return;
        const bool fits = count <= model_->buffer.size();
        bool refused = false;
        try {
            reader_->consume(count);
        } catch (const asyncio::ValueError&) {
            refused = true;
        }
        if (refused == fits)
            fail("consume(" + std::to_string(count) + ") of " + shown(model_->buffer));
        if (fits) model_->buffer.erase(0, count);
        check_buffer("consume");
    }

    void check_buffer(const std::string& after) const {
        if (reader_->buffered() == model_->buffer) return;
        fail("after " + after + " the buffer has " + shown(reader_->buffered()) + ", not " +
             shown(model_->buffer));
    }

    // What has become of the read.
    void look() {
        if (std::exchange(has_beside_, false) &&
            (beside_outcome_.kind != Outcome::other ||
             beside_outcome_.message.find("called while another coroutine") == std::string::npos))
            fail("a second read gave " + beside_outcome_.text());
        if (!reading_) {
            check_buffer("nothing");
            return;
        }
        Model after = *model_;
        std::size_t used = 0;
        const Outcome wanted = after.read(read_, kernel_.seen, used);
        if (!task_.done()) {
            if (turns_since_begin_ < 3 || turns_since_news_ < 3) return;
            if (wanted.kind != Outcome::waits)
                fail(read_.text() + " still waits, and has " + wanted.text());
            if (!kernel_.is_drained() && !cancel_asked_)
                fail(read_.text() + " sleeps, while there is something for it");
            return;
        }
        reading_ = false;
        if (task_.cancelled()) {
            if (!cancel_asked_) fail(read_.text() + " was cancelled by nobody");
            // What it has received is in the buffer, and nothing of that was taken.
            for (const Event& event : kernel_.seen) model_->see(event);
            check_buffer(read_.text() + ", which was cancelled,");
            return;
        }
        std::string seen;
        for (const Event& event : kernel_.seen)
            seen += "\n    " + std::to_string(event.kind) + " " + shown(event.bytes);
        if (outcome_ != wanted)
            fail(read_.text() + " of limit " + std::to_string(limit_) + " from " +
                 shown(model_->buffer) + " gave " + outcome_.text() + ", not " + wanted.text() +
                 seen);
        for (; used < kernel_.seen.size(); ++used) {
            if (kernel_.seen[used].kind != Event::close && !after.is_closed())
                fail(read_.text() + " has received more than it needed");
            after.see(kernel_.seen[used]);
        }
        *model_ = std::move(after);
        check_buffer(read_.text());
    }

    Input input_;
    Kernel kernel_;
    std::size_t limit_ = 0;
    std::optional<Model> model_;
    StreamReader* reader_ = nullptr;
    asyncio::StreamWriter* writer_ = nullptr;
    Read read_;
    Outcome outcome_;
    asyncio::Task<> task_;
    bool reading_ = false;
    bool cancel_asked_ = false;
    bool was_reset_ = false;
    bool closed_ = false; // by this side
    unsigned turns_since_begin_ = 0;
    unsigned turns_since_news_ = 0;
    const Read beside_read_{Read::some, 1, {}};
    Outcome beside_outcome_;
    asyncio::Task<> beside_;
    bool has_beside_ = false;
};

void note(Outcome& outcome, std::string bytes) {
    outcome.kind = Outcome::value;
    outcome.bytes = std::move(bytes);
}

Coro<> read_once(StreamReader reader, const Read* read, Outcome* outcome) {
    switch (read->kind) {
    case Read::some:
        note(*outcome, co_await reader.read(static_cast<std::ptrdiff_t>(read->size)));
        break;
    case Read::all:
        note(*outcome, co_await reader.read());
        break;
    case Read::into: {
        std::string into(read->size, '\0');
        const std::size_t count = co_await reader.read_into(into);
        into.resize(count);
        note(*outcome, std::move(into));
        break;
    }
    case Read::exactly:
        note(*outcome, co_await reader.readexactly(read->size));
        break;
    case Read::until:
        note(*outcome, co_await reader.readuntil(read->separators.front()));
        break;
    case Read::until_several: {
        const std::vector<std::string_view> several(read->separators.begin(),
                                                    read->separators.end());
        note(*outcome, co_await reader.readuntil(several));
        break;
    }
    case Read::line:
        note(*outcome, co_await reader.readline());
        break;
    case Read::next: {
        std::optional<std::string> line = co_await reader.next();
        if (line.has_value()) {
            note(*outcome, *std::move(line));
        } else {
            outcome->kind = Outcome::nothing;
        }
        break;
    }
    case Read::peek:
        note(*outcome, std::string(co_await reader.peek(read->size)));
        break;
    case Read::kinds:
        break;
    }
}

Coro<> perform(StreamReader reader, const Read* read, Outcome* outcome) {
    try {
        co_await read_once(reader, read, outcome);
    } catch (const asyncio::IncompleteReadError& error) {
        outcome->kind = Outcome::incomplete;
        outcome->bytes = error.partial();
        outcome->expected = error.expected();
    } catch (const asyncio::LimitOverrunError& error) {
        outcome->kind = Outcome::overrun;
        outcome->message = error.what();
        outcome->consumed = error.consumed();
    } catch (const asyncio::ValueError& error) {
        outcome->kind = Outcome::value_error;
        outcome->message = error.what();
    } catch (const std::system_error& error) {
        outcome->kind = error.code().value() == ECONNRESET ? Outcome::reset : Outcome::other;
        if (outcome->kind == Outcome::other) outcome->message = error.what();
    } catch (const asyncio::RuntimeError& error) {
        outcome->kind = Outcome::other;
        outcome->message = error.what();
    }
}

} // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const asyncio::EventLoopOwner loop =
        asyncio::new_event_loop(asyncio::LoopOptions().system_calls(table()));
    Run run(data, size);
    asyncio::run_until_complete(*loop, run());
    return 0;
}
