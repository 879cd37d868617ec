// SPDX-License-Identifier: MIT
// getaddrinfo and getnameinfo: from names to addresses and back, without blocking the loop.
//
//     const auto found = co_await asyncio::getaddrinfo(
//         "example.org", "https", asyncio::GetAddrInfoOptions().type(SOCK_STREAM));
//     for (const asyncio::AddressInfo& one : found) std::puts(one.address.text().c_str());
//
// The C library's resolver does the work, on a thread of a small pool, so that /etc/hosts, nsswitch
// and whatever else this machine has set up count as they do for every other program. What is
// numeric already is answered at once, without a thread. Who asks what is being looked up already
// waits for the same answer. A cancel ends the await at once; an answer that nobody waits for any
// more is dropped when it comes.
#pragma once

#include <asyncio/address.hpp>
#include <asyncio/coroutine.hpp>

#include <netdb.h>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE

// Of the EAI_* numbers of <netdb.h>, with the texts of gai_strerror.
ASYNCIO_API const std::error_category& gai_category() noexcept;

// A name could not be looked up: "getaddrinfo for 'nope.invalid': Name or service not known".
// code().value() is one of EAI_NONAME, EAI_AGAIN, ... (socket.gaierror)
class ASYNCIO_API GaiError : public std::system_error {
  public:
    // `error_number`: the errno that comes with EAI_SYSTEM.
    GaiError(int code, const std::string& what, int error_number = 0);
    GaiError(const GaiError&) noexcept;
    GaiError& operator=(const GaiError&) noexcept;
    ~GaiError() override;

    // Of EAI_SYSTEM: the errno behind it; else 0.
    int error_number() const noexcept { return error_number_; }

  private:
    int error_number_;
};

// One address of a name, with what socket() wants for it.
struct AddressInfo {
    AddressInfo() = default;
    AddressInfo(int family_of_it, int type_of_it, int protocol_of_it, Address the_address,
                std::string name = {})
        : family(family_of_it), type(type_of_it), protocol(protocol_of_it),
          canonical_name(std::move(name)), address(the_address) {}

    int family = AF_UNSPEC;
    int type = 0;
    int protocol = 0;
    std::string canonical_name; // of the first one, if AI_CANONNAME asked for it
    Address address;
};

// What getaddrinfo() looks for. Chained setters: `GetAddrInfoOptions().family(AF_INET6)`.
class GetAddrInfoOptions {
  public:
    // AF_INET or AF_INET6. Default: AF_UNSPEC, both.
    GetAddrInfoOptions& family(int family) noexcept {
        family_ = family;
        return *this;
    }
    // SOCK_STREAM or SOCK_DGRAM. Default: 0, which gives each address once for each type.
    GetAddrInfoOptions& type(int type) noexcept {
        type_ = type;
        return *this;
    }
    // IPPROTO_TCP or IPPROTO_UDP. Default: 0, any.
    GetAddrInfoOptions& protocol(int protocol) noexcept {
        protocol_ = protocol;
        return *this;
    }
    // AI_PASSIVE, AI_CANONNAME, ... of <netdb.h>, or'ed. Default: none.
    GetAddrInfoOptions& flags(int flags) noexcept {
        flags_ = flags;
        return *this;
    }
    int family() const noexcept { return family_; }
    int type() const noexcept { return type_; }
    int protocol() const noexcept { return protocol_; }
    int flags() const noexcept { return flags_; }

  private:
    int family_ = AF_UNSPEC;
    int type_ = 0;
    int protocol_ = 0;
    int flags_ = 0;
};

// The addresses of a host, in the order in which they should be tried; never none. The host is a
// name or a numeric address (of IPv6 with its scope: "fe80::1%eth0"); empty, it is the wildcard
// address with AI_PASSIVE, else the loopback. The service is a name of /etc/services, a port in
// digits, or empty for port 0; not both may be empty. Throws GaiError for what the resolver says,
// ValueError for what it could never be asked: a zero byte in it, a name of more than 253 bytes, a
// port that is no port; std::system_error if a thread is needed and cannot be started.
// (loop.getaddrinfo)
ASYNCIO_API Coro<std::vector<AddressInfo>> getaddrinfo(std::string host, std::string service,
                                                       GetAddrInfoOptions options = {});
// The same with a port.
ASYNCIO_API Coro<std::vector<AddressInfo>> getaddrinfo(std::string host, int port,
                                                       GetAddrInfoOptions options = {});

// The name of a host, and of the service on a port.
struct NameInfo {
    NameInfo() = default;
    NameInfo(std::string name_of_host, std::string name_of_service)
        : host(std::move(name_of_host)), service(std::move(name_of_service)) {}

    std::string host;
    std::string service;
};

// What the address is called; in numbers if it has no name. Flags: NI_NUMERICHOST, NI_NUMERICSERV
// (with both nothing is looked up, and no thread is needed), NI_NAMEREQD, NI_DGRAM, ... of
// <netdb.h>, or'ed. Throws GaiError, and std::system_error as getaddrinfo() does.
// (loop.getnameinfo)
ASYNCIO_API Coro<NameInfo> getnameinfo(Address address, int flags = 0);

ASYNCIO_END_NAMESPACE
