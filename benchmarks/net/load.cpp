// SPDX-License-Identifier: MIT
//
// Measures a server with one row: starts it, sends it what the row says, looks at each byte that
// comes back, and prints lines of JSON as the other benchmark programs do. One thread, one epoll
// descriptor, three system calls a request: the same for all servers.
//
//     asyncio_net_load SIDE SERVER [ARGUMENT...] -- ROW [--quick]
//     asyncio_net_load SIDE SERVER [ARGUMENT...] -- --list
//
// A server knows `--modes`, which prints those that it has, and `MODE [CERTIFICATE]`: then it
// listens on a free port of 127.0.0.1, prints the port on a line, and serves until it is killed.
// Modes:
//
//   - streams, peek, sockets, protocols: sends back what comes by TCP; by this API, if it has
//   several
//   - sink: reads, and answers every 16 MiB with a byte
//   - source: sends the bytes 0, 1, ... 255, 0, ... without end
//   - tls, tls_sink, tls_source: the same with TLS; CERTIFICATE is a PEM file with the key too
//   - udp: sends each datagram back
//   - no_instructions is no mode; it says that the program does not run under valgrind
#include "link.hpp"
#include "server.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <iterator>
#include <limits>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <vector>

namespace {

using net::Link;
using net::Server;
using net::Under;

// ---- The rows

enum class Kind { echo, connect, receive, send, udp };

struct Row {
    std::string name;
    std::string mode; // of the server
    Kind kind;
    std::size_t size = 64; // of a request
    int connections = 1;   // or datagrams under way

    bool is_bulk() const { return kind == Kind::receive || kind == Kind::send; }
};

std::vector<Row> make_rows() {
    std::vector<Row> rows;
    const auto echo = [&rows](const std::string& mode, Kind kind) {
        for (const char* size : {"64", "16k"}) {
            for (const int connections : {1, 50, 500}) {
                rows.push_back({mode + "_" + size + "_" + std::to_string(connections), mode, kind,
                                size[0] == '6' ? 64u : 16u * 1024, connections});
            }
        }
    };
    for (const char* mode : {"streams", "read", "peek", "sockets", "protocols", "tls"})
        echo(mode, Kind::echo);
    for (const int window : {1, 50})
        rows.push_back({"udp_64_" + std::to_string(window), "udp", Kind::udp, 64, window});
    rows.push_back({"connect_50", "streams", Kind::connect, 64, 50});
    rows.push_back({"receive", "sink", Kind::receive});
    rows.push_back({"send", "source", Kind::send});
    rows.push_back({"tls_connect_50", "tls", Kind::connect, 64, 50});
    rows.push_back({"tls_receive", "tls_sink", Kind::receive});
    rows.push_back({"tls_send", "tls_source", Kind::send});
    return rows;
}

// ---- How long, and what it took

// Counts what is done, and says when it is enough: by the clock, in slices whose median counts, or
// after so many requests.
class Meter {
  public:
    Meter(const Server& server, std::uint64_t limit, double slice, std::uint64_t least)
        : server_(server), limit_(limit), slice_(slice), least_(least) {}

    // May one more be begun?
    bool begin() { return !over_ && ++begun_ <= limit_; }

    void done(std::uint64_t count) { done_ += count; }

    // Called between events.
    void look() {
        if (over_) return;
        if (slice_ == 0) {
            over_ = done_ >= limit_;
            return;
        }
        const double now = seconds();
        if (began_ == 0) began_ = now;
        if (now < began_ + slice_ || done_ < done_before_ + least_) return;
        const double cpu = server_.cpu_seconds();
        if (is_warm_) {
            const auto count = static_cast<double>(done_ - done_before_);
            cost.push_back((cpu - cpu_before_) / count);
            rate.push_back(count / (now - began_));
        }
        is_warm_ = true;
        began_ = now;
        cpu_before_ = cpu;
        done_before_ = done_;
        over_ = cost.size() == slices;
    }
    bool over() const { return over_; }

    static constexpr std::size_t slices = 5;
    std::vector<double> cost; // the server's CPU seconds for each that was done, slice by slice
    std::vector<double> rate; // a second of wall time

  private:
    static double seconds() {
        timespec now{};
        clock_gettime(CLOCK_MONOTONIC, &now);
        return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
    }

    const Server& server_;
    std::uint64_t limit_;
    double slice_; // seconds, or 0 where only the limit counts
    std::uint64_t
        least_; // and not fewer in a slice: else what is under way at its ends counts too much
    bool is_warm_ = false;
    std::uint64_t begun_ = 0;
    std::uint64_t done_ = 0;
    std::uint64_t done_before_ = 0;
    double began_ = 0;
    double cpu_before_ = 0;
    bool over_ = false;
};

// ---- The clients

// One connection of the generator, or its one UDP socket.
class Client {
  public:
    Client() = default;
    virtual ~Client() = default;
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;
    virtual void ready() = 0; // an edge came
    virtual bool finished() { return true; }
    virtual void finish() {} // the meter is over; called once
};

// What all of them share.
struct Load {
    int epoll;
    std::uint16_t port;
    SSL_CTX* tls;
    std::size_t size;
    Meter& meter;
};

// The byte at this place of whatever is sent, so that a lost or doubled piece is noticed.
char byte_at(std::size_t place) { return static_cast<char>(place & 0xff); }
std::vector<char> pattern(std::size_t size) {
    std::vector<char> bytes(size);
    for (std::size_t i = 0; i < size; ++i) bytes[i] = byte_at(i);
    return bytes;
}

// One request and its answer at a time; over one connection, or a new one for each.
class EchoClient : public Client {
  public:
    EchoClient(Load& load, int number, bool reconnects)
        : load_(load), source_(reconnects ? 2 + number % 250 : 0), request_(pattern(load.size)),
          answer_(load.size) {
        connect();
    }

    void ready() override {
        if (closing_) {
            if (!link_->peer_has_closed()) return;
            load_.meter.done(1);
            connect();
            return;
        }
        if (idle_ || !link_->established()) return;
        if (!begun_) {
            begun_ = load_.meter.begin();
            idle_ = !begun_;
            if (idle_) return;
        }
        if (sent_ < load_.size && !send()) return;
        // An answer ends with its last byte, so there is no need to ask for more until the next
        // edge.
        while (received_ < load_.size) {
            const long length = link_->receive(answer_.data() + received_, load_.size - received_);
            if (length == Link::nothing_now) return;
            if (length == 0) throw std::runtime_error("the server closed a connection");
            received_ += static_cast<std::size_t>(length);
        }
        if (answer_ != request_) throw std::runtime_error("other bytes came back than were sent");
        answer_[0] = static_cast<char>(~answer_[0]); // so that an old answer is none
        sent_ = received_ = 0;
        begun_ = false;
        if (source_ > 0) {
            closing_ = true;
            link_->send_end();
            return;
        }
        load_.meter.done(1);
        begun_ = load_.meter.begin();
        idle_ = !begun_;
        if (begun_) send();
    }

  private:
    void connect() {
        closing_ = false;
        link_.emplace(load_.epoll, load_.port, load_.tls, static_cast<Client*>(this), source_);
    }
    bool send() {
        while (sent_ < load_.size) {
            const long length = link_->send(request_.data() + sent_, load_.size - sent_);
            if (length == Link::nothing_now) return false;
            sent_ += static_cast<std::size_t>(length);
        }
        return true;
    }

    Load& load_;
    int source_; // above 0: a new connection for each request, from this address
    std::optional<Link> link_;
    std::vector<char> request_;
    std::vector<char> answer_;
    std::size_t sent_ = 0;
    std::size_t received_ = 0;
    bool begun_ = false;
    bool idle_ = false;
    bool closing_ = false;
};

constexpr std::size_t block_size = std::size_t{256} * 1024;

// Sends as fast as the server receives, and at the end as much as brings the last answer.
class Feeder : public Client {
  public:
    explicit Feeder(Load& load)
        : load_(load), link_(load.epoll, load.port, load.tls, static_cast<Client*>(this)),
          block_(pattern(block_size)) {}

    void ready() override {
        if (!link_.established()) return;
        read_answers();
        while (true) {
            const std::uint64_t wanted = finishing_ ? sink_unit - sent_ % sink_unit : block_.size();
            if (finishing_ && wanted == sink_unit) return;
            const long length =
                link_.send(block_.data(), std::min<std::size_t>(wanted, block_.size()));
            if (length == Link::nothing_now) return;
            sent_ += static_cast<std::uint64_t>(length);
            load_.meter.done(static_cast<std::uint64_t>(length));
            load_.meter.look();
            if (load_.meter.over() && !finishing_) return;
        }
    }
    void finish() override {
        finishing_ = true;
        ready();
    }
    bool finished() override { return sent_ % sink_unit == 0 && answers_ == sent_ / sink_unit; }

  private:
    void read_answers() {
        char answers[64];
        while (true) {
            const long length = link_.receive(answers, sizeof answers);
            if (length == Link::nothing_now) return;
            if (length == 0) throw std::runtime_error("the server closed the connection");
            answers_ += static_cast<std::uint64_t>(length);
            if (answers_ > sent_ / sink_unit) throw std::runtime_error("an answer came too early");
        }
    }

    static constexpr std::uint64_t sink_unit = std::uint64_t{16} * 1024 * 1024;
    Load& load_;
    Link link_;
    std::vector<char> block_;
    std::uint64_t sent_ = 0;
    std::uint64_t answers_ = 0;
    bool finishing_ = false;
};

// Receives as fast as the server sends.
class Eater : public Client {
  public:
    explicit Eater(Load& load)
        : load_(load), link_(load.epoll, load.port, load.tls, static_cast<Client*>(this)),
          expected_(pattern(block_size + 256)), block_(block_size) {}

    void ready() override {
        if (!link_.established()) return;
        while (!load_.meter.over()) {
            const long length = link_.receive(block_.data(), block_.size());
            if (length == Link::nothing_now) return;
            if (length == 0) throw std::runtime_error("the server closed the connection");
            const auto size = static_cast<std::size_t>(length);
            if (std::memcmp(block_.data(), expected_.data() + (received_ & 0xff), size) != 0)
                throw std::runtime_error("other bytes came than should have been sent");
            received_ += size;
            load_.meter.done(size);
            load_.meter.look();
        }
    }

  private:
    Load& load_;
    Link link_;
    std::vector<char> expected_;
    std::vector<char> block_;
    std::uint64_t received_ = 0;
};

// Keeps so many datagrams under way, from one socket. Each begins with its slot and its number, so
// that one which comes twice is noticed; one which is lost stops its slot, and so ends the row.
class UdpClient : public Client {
  public:
    UdpClient(Load& load, int window)
        : load_(load), datagram_(pattern(load.size)), answer_(load.size + 1),
          numbers_(static_cast<std::size_t>(window)),
          socket_(socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(load.port);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        epoll_event wanted{EPOLLIN | EPOLLET, {.ptr = static_cast<Client*>(this)}};
        if (socket_ < 0 ||
            ::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
            epoll_ctl(load.epoll, EPOLL_CTL_ADD, socket_, &wanted) != 0) {
            net::fail("a UDP socket");
        }
        for (std::uint32_t slot = 0; slot < numbers_.size(); ++slot) send(slot);
    }
    ~UdpClient() override { close(socket_); }

    void ready() override {
        while (true) {
            const ssize_t length = recv(socket_, answer_.data(), answer_.size(), 0);
            if (length < 0 && errno == EAGAIN) return;
            if (length < 0) net::fail("recv");
            std::uint32_t head[2];
            std::memcpy(head, answer_.data(), sizeof head);
            if (static_cast<std::size_t>(length) != load_.size || head[0] >= numbers_.size() ||
                head[1] != numbers_[head[0]] ||
                std::memcmp(answer_.data() + sizeof head, datagram_.data() + sizeof head,
                            load_.size - sizeof head) != 0) {
                throw std::runtime_error("another datagram came back than was sent");
            }
            ++numbers_[head[0]];
            load_.meter.done(1);
            send(head[0]);
        }
    }

  private:
    void send(std::uint32_t slot) {
        if (!load_.meter.begin()) return;
        const std::uint32_t head[2] = {slot, numbers_[slot]};
        std::memcpy(datagram_.data(), head, sizeof head);
        if (::send(socket_, datagram_.data(), load_.size, 0) < 0) net::fail("send");
    }

    Load& load_;
    std::vector<char> datagram_;
    std::vector<char> answer_;
    std::vector<std::uint32_t> numbers_;
    int socket_;
};

std::unique_ptr<Client> make_client(Load& load, Kind kind, int number, int connections) {
    switch (kind) {
    case Kind::echo:
        return std::make_unique<EchoClient>(load, number, false);
    case Kind::connect:
        return std::make_unique<EchoClient>(load, number, true);
    case Kind::receive:
        return std::make_unique<Feeder>(load);
    case Kind::send:
        return std::make_unique<Eater>(load);
    case Kind::udp:
        return std::make_unique<UdpClient>(load, connections);
    }
    return nullptr;
}

void wait_for_edges(int epoll) {
    std::array<epoll_event, 512> events{};
    const int count = epoll_wait(epoll, events.data(), events.size(), 20'000);
    if (count < 0) net::fail("epoll_wait");
    if (count == 0) throw std::runtime_error("nothing came for 20 seconds: an answer is lost");
    for (int i = 0; i < count; ++i)
        static_cast<Client*>(events[static_cast<std::size_t>(i)].data.ptr)->ready();
}

void generate(const Row& row, Server& server, Meter& meter) {
    const int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) net::fail("epoll_create1");
    Load load{epoll, server.port(), nullptr, row.size, meter};
    if (row.mode.starts_with("tls")) load.tls = net::tls_context();
    std::vector<std::unique_ptr<Client>> clients;
    const int count = row.kind == Kind::udp ? 1 : row.connections;
    for (int i = 0; i < count; ++i)
        clients.push_back(make_client(load, row.kind, i, row.connections));
    while (!meter.over()) {
        wait_for_edges(epoll);
        meter.look();
    }
    for (const auto& client : clients) {
        client->finish();
        while (!client->finished()) wait_for_edges(epoll);
    }
    server.stop(); // before its clients go away in the middle of something, which it might report
    clients.clear();
    SSL_CTX_free(load.tls);
    close(epoll);
}

// ---- The measures

struct Side {
    std::string name;
    std::vector<std::string> server;
    bool quick = false;
};

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

void print(const Side& side, const std::string& row, const char* unit, double factor,
           const std::vector<double>& values) {
    std::printf("{\"name\":\"%s\",\"side\":\"%s\",\"compiler\":\"\",\"quick\":%s,\"value\":%.6g,"
                "\"unit\":\"%s\",\"raw\":[",
                row.c_str(), side.name.c_str(), side.quick ? "true" : "false",
                median(values) * factor, unit);
    const char* comma = "";
    for (const double value : values) {
        std::printf("%s%.6g", comma, value * factor);
        comma = ",";
    }
    std::puts("]}");
}

// CPU time of the server for one, and the rate, in one go.
void measure_by_the_clock(const Side& side, const Row& row) {
    Server server(side.server, row.mode, Under::nothing);
    const auto least = static_cast<std::uint64_t>(row.is_bulk() ? 1 << 24 : 5 * row.connections);
    Meter meter(server, std::numeric_limits<std::uint64_t>::max(), side.quick ? 0.02 : 0.1, least);
    generate(row, server, meter);
    if (row.is_bulk()) {
        print(side, row.name, "ms/GB", 1e12, meter.cost);
        print(side, row.name + "_rate", "GB/s", 1e-9, meter.rate);
    } else {
        print(side, row.name, "us", 1e6, meter.cost);
        print(side, row.name + "_rate", "k/s", 1e-3, meter.rate);
    }
}

// What is counted over the life of a server that answers so many requests.
double count(const Side& side, const Row& row, Under under, std::uint64_t requests) {
    Server server(side.server, row.mode, under);
    Meter meter(server, requests, 0, 0);
    generate(row, server, meter);
    return server.stop_and_count();
}

// The slope between two numbers of requests: without what it takes to start and to connect.
void measure_by_count(const Side& side, const Row& row, Under under, const std::string& name) {
    const std::uint64_t few = static_cast<std::uint64_t>(row.connections) * 20 + 500;
    const std::uint64_t many = 3 * few;
    const double less = count(side, row, under, few);
    const double more = count(side, row, under, many);
    print(side, name, under == Under::strace ? "calls" : "instr", 1,
          {(more - less) / static_cast<double>(many - few)});
}

// ---- The command line

void list(const Side& side, const std::vector<Row>& rows) {
    std::vector<std::string> command = side.server;
    command.emplace_back("--modes");
    std::istringstream words(net::output_of(command));
    const std::set<std::string> modes{std::istream_iterator<std::string>(words), {}};
    std::vector<const char*> measures = {"", "_rate"};
    if (net::on_path("strace")) measures.push_back("_calls");
    if (net::on_path("valgrind") && !modes.contains("no_instructions"))
        measures.push_back("_instructions");
    for (const Row& row : rows) {
        if (!modes.contains(row.mode)) continue;
        // Nothing is counted of a stream: its requests are bytes.
        const std::size_t count = row.is_bulk() ? 2 : measures.size();
        for (std::size_t i = 0; i < count; ++i)
            std::printf("%s%s\n", row.name.c_str(), measures[i]);
    }
}

// Removes the ending from the name, if it is there.
bool take_ending(std::string& name, std::string_view ending) {
    if (!name.ends_with(ending)) return false;
    name.resize(name.size() - ending.size());
    return true;
}

int measure(const Side& side, const std::string& wanted, const std::vector<Row>& rows) {
    std::string name = wanted;
    Under under = Under::nothing;
    if (take_ending(name, "_calls")) under = Under::strace;
    if (take_ending(name, "_instructions")) under = Under::callgrind;
    if (under == Under::nothing) take_ending(name, "_rate");
    for (const Row& row : rows) {
        if (row.name != name || (under != Under::nothing && row.is_bulk())) continue;
        // With one request under way the two never work at the same time. On two processors most of
        // what is measured would be how these fall asleep and are woken.
        net::place_generator(row.connections == 1 && !row.is_bulk());
        if (under == Under::nothing) {
            measure_by_the_clock(side, row);
        } else {
            measure_by_count(side, row, under, wanted);
        }
        return 0;
    }
    std::fprintf(stderr, "there is no row %s\n", wanted.c_str());
    return 2;
}

} // namespace

int main(int argc, char** argv) {
    std::vector<std::string> words(argv + 1, argv + argc);
    const auto bar = std::find(words.begin(), words.end(), "--");
    if (bar - words.begin() < 2 || bar == words.end() || bar + 1 == words.end()) {
        std::fprintf(stderr, "usage: %s SIDE SERVER [ARGUMENT...] -- ROW [--quick] | --list\n",
                     argv[0]);
        return 2;
    }
    Side side{words.front(), {words.begin() + 1, bar}, words.back() == "--quick"};
    const std::string& row = *(bar + 1);
    std::signal(SIGPIPE, SIG_IGN);
    try {
        const std::vector<Row> rows = make_rows();
        if (row == "--list") {
            list(side, rows);
            return 0;
        }
        return measure(side, row, rows);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s %s: %s\n", side.name.c_str(), row.c_str(), error.what());
        return 1;
    }
}
