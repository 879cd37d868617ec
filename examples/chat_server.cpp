// SPDX-License-Identifier: MIT
//
// A chat server: what one client writes, all others read. To take part: nc 127.0.0.1 8008.
//
// write() never waits, so a client that is slow holds up nobody: what it has not read yet is kept
// for it, and when that is too much, it is shown the door.
#include "command_line.hpp"

#include <asyncio/asyncio.hpp>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

constexpr const char* usage = "chat_server [HOST [PORT]]\n"
                              "Lets clients that connect talk to each other, line by line.\n"
                              "Default: 127.0.0.1 8008; port 0 is any that is free.\n";

constexpr std::size_t longest_line = 4096;
constexpr std::size_t most_unread = 1024 * 1024; // bytes kept for a client

class Room {
  public:
    // A client who is in the room for as long as this lives.
    class Seat {
      public:
        Seat(Room& room, std::string name, const asyncio::StreamWriter& writer)
            : room_(room), name_(std::move(name)) {
            room_.clients_.emplace(name_, writer);
            room_.tell_all("* " + name_ + " has come\n");
        }
        Seat(const Seat&) = delete;
        Seat& operator=(const Seat&) = delete;
        ~Seat() {
            room_.clients_.erase(name_);
            room_.tell_all("* " + name_ + " has left\n");
        }
        const std::string& name() const noexcept { return name_; }

      private:
        Room& room_;
        std::string name_;
    };

    bool has(std::string_view name) const { return clients_.contains(name); }
    std::string names() const {
        std::string all;
        for (const auto& [name, writer] : clients_) all += (all.empty() ? "" : ", ") + name;
        return all;
    }
    void tell_all(std::string_view text, std::string_view but = {}) {
        for (const auto& [name, writer] : clients_) {
            if (name == but) continue;
            writer.write(text);
            if (writer.get_write_buffer_size() > most_unread) {
                std::cout << name << " does not read, and is dropped" << std::endl;
                writer.abort(); // its task reads the end, and leaves
            }
        }
    }

  private:
    std::map<std::string, asyncio::StreamWriter, std::less<>> clients_;
};

// A line without its end; nothing once the client has ended.
asyncio::Coro<std::optional<std::string>> next_line(asyncio::StreamReader reader) {
    auto line = co_await reader.next();
    while (line && !line->empty() && (line->back() == '\n' || line->back() == '\r'))
        line->pop_back();
    co_return line;
}

bool is_name(std::string_view name) {
    return !name.empty() && name.size() <= 20 && name.find_first_of(" \t<>*") == name.npos;
}

asyncio::Coro<> talk(Room& room, asyncio::StreamReader reader, asyncio::StreamWriter writer) {
    writer.write("Your name?\n");
    auto name = co_await next_line(reader);
    while (name && (!is_name(*name) || room.has(*name))) {
        writer.write(is_name(*name) ? "That one is taken. Your name?\n"
                                    : "One word of at most 20 letters, please. Your name?\n");
        name = co_await next_line(reader);
    }
    if (!name) co_return;

    const Room::Seat seat(room, *name, writer);
    while (auto line = co_await next_line(reader)) {
        if (*line == "/quit") break;
        if (*line == "/who") {
            writer.write(room.names() + '\n');
        } else if (!line->empty()) {
            room.tell_all('<' + seat.name() + "> " + *line + '\n', seat.name());
        }
        co_await writer.drain(); // who asks and does not read is not asked on
    }
    writer.write("Bye.\n");
}

// A client's task outlives async_main at Control-C, so it has its part of the room.
asyncio::Coro<> client(std::shared_ptr<Room> room, asyncio::StreamReader reader,
                       asyncio::StreamWriter writer) {
    try {
        co_await talk(*room, reader, writer);
    } catch (const asyncio::ValueError&) { // of the limit
        writer.write("That line is too long. Bye.\n");
    } catch (const std::system_error& error) {
        std::cout << writer.get_extra_info(asyncio::peername).text() << ": " << error.what()
                  << std::endl;
    }
}

asyncio::Coro<int> async_main(command_line::Words words) {
    const std::string host = words.next_or("HOST", "127.0.0.1");
    const auto port = command_line::port(words.next_or("PORT", "8008"));
    words.end();

    auto room = std::make_shared<Room>();
    const auto handler = [room](asyncio::StreamReader reader, asyncio::StreamWriter writer) {
        return client(room, std::move(reader), std::move(writer));
    };
    const auto server = co_await asyncio::start_server(
        handler, host, port, asyncio::ServerOptions().limit(longest_line));
    co_await command_line::serve(server);
    co_return 0;
}

int main(int argc, char** argv) { return command_line::run(argc, argv, usage, async_main); }
