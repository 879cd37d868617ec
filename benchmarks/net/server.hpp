// SPDX-License-Identifier: MIT
//
// A server under measurement, as a process of its own. It is started with a mode, prints its port
// as its first line, and serves until it is killed, so that no server needs code to stop.
//
//     Server server(command, "streams", Under::nothing);
//     ...                                // connect to server.port()
//     double before = server.cpu_seconds();
#pragma once

#include <cstdint>
#include <ctime>
#include <string>
#include <sys/types.h>
#include <vector>

namespace net {

// What watches it and counts: user instructions (callgrind), system calls (strace -c -f), or only
// the kernel's clock.
enum class Under { nothing, callgrind, strace };

// A folder that is gone with the object.
class ScratchFolder {
  public:
    ScratchFolder();
    ~ScratchFolder();
    ScratchFolder(const ScratchFolder&) = delete;
    ScratchFolder& operator=(const ScratchFolder&) = delete;
    std::string operator/(const std::string& name) const { return path_ + "/" + name; }

  private:
    std::string path_;
};

// Runs a command to its end and returns what it printed; throws if it fails.
std::string output_of(const std::vector<std::string>& command);

// Is there such a program on the path?
bool on_path(const std::string& program);

// Servers have the last of the processors that this process may use. The generator takes the first
// one, or that of the server too; else the scheduler puts both on the same one, or not, as it
// likes.
void place_generator(bool beside_the_server);

class Server {
  public:
    // Throws if it does not start or prints no port within half a minute.
    Server(std::vector<std::string> command, const std::string& mode, Under under);
    ~Server();
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    std::uint16_t port() const { return port_; }

    // User and system time of all its threads so far, in seconds.
    double cpu_seconds() const;

    void stop();
    // Stops it and returns what was counted over its whole life: instructions or calls.
    double stop_and_count();

  private:
    std::uint16_t read_port(int out) const;

    Under under_;
    ScratchFolder scratch_;
    pid_t process_ = -1;
    int alive_ = -1; // a pipe that ends when the server, and what watches it, are gone
    clockid_t clock_{};
    std::uint16_t port_ = 0;
};

} // namespace net
