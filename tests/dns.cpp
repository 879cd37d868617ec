// SPDX-License-Identifier: MIT
#include <asyncio/asyncio.hpp>
#include <asyncio/detail/thread_pool.hpp>
#include <asyncio/testing/virtual_time.hpp>
#include <gtest/gtest.h>

#include "support/in_virtual_time.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <mutex>
#include <net/if.h>
#include <netdb.h>
#include <new>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

using asyncio::Address;
using asyncio::AddressInfo;
using asyncio::as_result;
using asyncio::CancelledError;
using asyncio::Coro;
using asyncio::create_task;
using asyncio::EventLoop;
using asyncio::gai_category;
using asyncio::GaiError;
using asyncio::get_running_loop;
using asyncio::getaddrinfo;
using asyncio::GetAddrInfoOptions;
using asyncio::getnameinfo;
using asyncio::LoopOptions;
using asyncio::NameInfo;
using asyncio::Result;
using asyncio::RunOptions;
using asyncio::SystemCalls;
using asyncio::Task;
using asyncio_test::text_of;
using asyncio_test::thrown_by;
using namespace std::chrono_literals;

namespace {

void wait_until(const auto& condition) {
    while (!condition()) std::this_thread::yield();
}

// A resolver that does as a test tells it. Names: "slow..." comes when the gate opens, "fail..."
// with the code, "many" has a thousand addresses, "memory" is a std::bad_alloc, "none" succeeds
// without an address; all others are 127.0.0.N, N their size. One test at a time.
struct Fake {
    std::atomic<int> lookups = 0; // begun
    std::atomic<int> answered = 0;
    std::atomic<int> lists = 0;   // not freed
    std::atomic<int> at_once = 0; // at work
    std::atomic<int> most_at_once = 0;
    std::atomic<bool> open = true;
    std::atomic<int> code = 0;
    std::atomic<int> error_number = 0;
    std::mutex mutex;
    std::vector<std::string> asked;
    std::thread::id thread;

    void reset() {
        lookups = answered = at_once = most_at_once = code = error_number = 0;
        open = true;
        asked.clear();
    }
    void shut() { open = false; }
    std::string names() {
        const std::lock_guard lock(mutex);
        std::string all;
        for (const std::string& name : asked) all += name + " ";
        return all;
    }
    void let_go() {
        open = true;
        open.notify_all();
    }
    void begin(const std::string& name) {
        {
            const std::lock_guard lock(mutex);
            asked.push_back(name);
            thread = std::this_thread::get_id();
        }
        const int now = ++at_once;
        int most = most_at_once;
        while (now > most && !most_at_once.compare_exchange_weak(most, now)) {
        }
        ++lookups;
        if (name.starts_with("slow")) open.wait(false);
    }
    void end() {
        --at_once;
        ++answered;
    }
} fake;

addrinfo* make_answer(int number, int port, const addrinfo& hints, addrinfo* next) {
    struct Block {
        addrinfo info;
        sockaddr_in address;
    };
    auto* block = new Block{};
    block->address.sin_family = AF_INET;
    block->address.sin_port = htons(static_cast<std::uint16_t>(port));
    block->address.sin_addr.s_addr = htonl(0x7f000000U + static_cast<std::uint32_t>(number));
    block->info.ai_family = AF_INET;
    block->info.ai_socktype = hints.ai_socktype != 0 ? hints.ai_socktype : SOCK_STREAM;
    block->info.ai_protocol = IPPROTO_TCP;
    block->info.ai_addr = reinterpret_cast<sockaddr*>(&block->address);
    block->info.ai_addrlen = sizeof block->address;
    block->info.ai_next = next;
    ++fake.lists;
    return &block->info;
}

const SystemCalls& fake_calls() {
    static const SystemCalls calls = [] {
        SystemCalls table = SystemCalls::real();
        table.getaddrinfo = [](const char* host, const char* service, const addrinfo* hints,
                               addrinfo** result) -> int {
            const std::string name = host != nullptr ? host : "";
            struct Scope {
                explicit Scope(const std::string& n) { fake.begin(n); }
                ~Scope() { fake.end(); }
            };
            const Scope scope(name);
            if (name == "memory") throw std::bad_alloc();
            *result = nullptr;
            if (name.starts_with("fail")) {
                errno = fake.error_number;
                return fake.code;
            }
            if (name == "none") return 0;
            const int port = service != nullptr ? std::atoi(service) : 0;
            const int count = name == "many" ? 1000 : 1;
            for (int i = 0; i < count; ++i) {
                const int number = count > 1 ? count - i : static_cast<int>(name.size());
                *result = make_answer(number, port, *hints, *result);
            }
            return 0;
        };
        table.freeaddrinfo = [](addrinfo* list) {
            while (list != nullptr) {
                addrinfo* next = list->ai_next;
                struct Block {
                    addrinfo info;
                    sockaddr_in address;
                };
                delete reinterpret_cast<Block*>(list);
                --fake.lists;
                list = next;
            }
        };
        table.getnameinfo = [](const sockaddr* address, socklen_t, char* host, socklen_t host_size,
                               char* service, socklen_t service_size, int) -> int {
            sockaddr_in ipv4;
            std::memcpy(&ipv4, address, sizeof ipv4);
            struct Scope {
                explicit Scope(const std::string& n) { fake.begin(n); }
                ~Scope() { fake.end(); }
            };
            const Scope scope(ntohs(ipv4.sin_port) == 1 ? "slow" : "name");
            if (fake.code != 0) return fake.code;
            std::snprintf(host, host_size, "host-%u", ntohl(ipv4.sin_addr.s_addr) & 0xff);
            std::snprintf(service, service_size, "service-%u", unsigned{ntohs(ipv4.sin_port)});
            return 0;
        };
        return table;
    }();
    return calls;
}

RunOptions faked() { return RunOptions().loop(LoopOptions().system_calls(fake_calls())); }

// Runs a test's body with the fake resolver; nothing of that is left afterwards.
template <class Body> void run_faked(Body body) {
    fake.reset();
    asyncio::run(body(), faked());
    fake.let_go();
    wait_until([] { return fake.answered == fake.lookups && fake.lists == 0; });
}

// How many look-ups are made at a time.
int at_a_time() {
    const std::size_t threads = asyncio::detail::ThreadPool::of(get_running_loop()).limit();
    return static_cast<int>(std::max<std::size_t>(4, threads / 2));
}

// Until so many look-ups have begun. In turns of the loop, as look-ups may wait for others.
Coro<> begun(int count) {
    while (fake.lookups < count) co_await asyncio::sleep(0);
}

std::string text_of(const std::vector<AddressInfo>& all) {
    std::string text;
    for (const AddressInfo& one : all) {
        if (!text.empty()) text += " ";
        text += one.address.text();
    }
    return text;
}

GetAddrInfoOptions stream() { return GetAddrInfoOptions().type(SOCK_STREAM); }

// The GaiError that a look-up has thrown; none if it was something else.
std::optional<GaiError> gai_error_of(const std::exception_ptr& exception) {
    try {
        if (exception != nullptr) std::rethrow_exception(exception);
    } catch (const GaiError& error) {
        return error;
    } catch (...) { // NOLINT(bugprone-empty-catch)
    }
    return std::nullopt;
}

} // namespace

// --- Numbers ---

TEST(Dns, a_numeric_host_with_a_port_is_answered_at_once_and_asks_nobody) {
    run_faked([]() -> Coro<> {
        EventLoop& loop = get_running_loop();
        int turns = 0;
        auto count = loop.call_soon([&] { ++turns; });
        const auto v4 = co_await getaddrinfo("127.0.0.1", 80, stream());
        EXPECT_EQ(text_of(v4), "127.0.0.1:80");
        EXPECT_EQ(v4[0].family, AF_INET);
        EXPECT_EQ(v4[0].type, SOCK_STREAM);
        EXPECT_EQ(v4[0].protocol, IPPROTO_TCP);
        EXPECT_EQ(v4[0].canonical_name, "");
        const auto v6 = co_await getaddrinfo("::1", "443", stream());
        EXPECT_EQ(text_of(v6), "[::1]:443");
        EXPECT_EQ(v6[0].family, AF_INET6);
        const auto udp =
            co_await getaddrinfo("10.1.2.3", 53, GetAddrInfoOptions().type(SOCK_DGRAM));
        EXPECT_EQ(udp[0].protocol, IPPROTO_UDP);
        EXPECT_EQ(turns, 0) << "no turn of the loop has passed";
        count.cancel();
        EXPECT_EQ(fake.lookups, 0);
        EXPECT_EQ(loop.core().resolver, nullptr);
    });
}

TEST(Dns, a_numeric_host_without_a_type_is_given_once_for_each) {
    asyncio::run([]() -> Coro<> {
        const auto all = co_await getaddrinfo("127.0.0.1", 80);
        std::vector<int> types;
        for (const AddressInfo& one : all) types.push_back(one.type);
        EXPECT_EQ(types, (std::vector<int>{SOCK_STREAM, SOCK_DGRAM, SOCK_RAW}));
    });
}

TEST(Dns, the_scope_of_a_link_local_address_survives_as_name_and_as_number) {
    asyncio::run([]() -> Coro<> {
        const unsigned loopback = ::if_nametoindex("lo");
        const auto by_name = co_await getaddrinfo("fe80::1%lo", 80, stream());
        EXPECT_EQ(by_name.at(0).address.scope_id(), loopback);
        const auto by_number =
            co_await getaddrinfo("fe80::1%" + std::to_string(loopback), 80, stream());
        EXPECT_EQ(by_number.at(0).address, by_name.at(0).address);
        const auto back =
            co_await getnameinfo(by_name.at(0).address, NI_NUMERICHOST | NI_NUMERICSERV);
        EXPECT_EQ(back.host, "fe80::1%lo");
        EXPECT_EQ(back.service, "80");
        const auto unknown = co_await as_result(getaddrinfo("fe80::1%nosuchif", 80, stream()));
        EXPECT_EQ(text_of(unknown.exception()),
                  "exception: getaddrinfo for 'fe80::1%nosuchif': Name or service not known");
    });
}

TEST(Dns, an_empty_host_is_the_loopback_or_the_wildcard) {
    run_faked([]() -> Coro<> {
        const auto v4 = GetAddrInfoOptions().type(SOCK_STREAM).family(AF_INET);
        const auto loopback = co_await getaddrinfo("", 80, v4);
        EXPECT_EQ(text_of(loopback), "127.0.0.1:80");
        const auto passive = GetAddrInfoOptions(v4).flags(AI_PASSIVE);
        const auto wildcard = co_await getaddrinfo("", 80, passive);
        EXPECT_EQ(text_of(wildcard), "0.0.0.0:80");
        const auto both = co_await getaddrinfo("", 80, stream().flags(AI_PASSIVE));
        EXPECT_NE(text_of(both).find("0.0.0.0:80"), std::string::npos);
        EXPECT_NE(text_of(both).find("[::]:80"), std::string::npos);
        const auto neither = co_await as_result(getaddrinfo("", ""));
        EXPECT_EQ(
            text_of(neither.exception()),
            "exception: getaddrinfo for neither a host nor a service: Name or service not known");
        EXPECT_EQ(fake.lookups, 0);
    });
}

TEST(Dns, with_ai_numerichost_a_name_is_refused_without_a_lookup) {
    run_faked([]() -> Coro<> {
        const auto result =
            co_await as_result(getaddrinfo("localhost", 80, stream().flags(AI_NUMERICHOST)));
        EXPECT_EQ(text_of(result.exception()),
                  "exception: getaddrinfo for 'localhost': Name or service not known");
        EXPECT_EQ(fake.lookups, 0);
    });
}

// --- The real resolver ---

TEST(Dns, localhost_is_found_and_has_a_name) {
    asyncio::run([]() -> Coro<> {
        const auto all = co_await getaddrinfo("localhost", 80, stream());
        EXPECT_FALSE(all.empty());
        for (const AddressInfo& one : all) {
            EXPECT_TRUE(one.address.host() == "127.0.0.1" || one.address.host() == "::1");
            EXPECT_EQ(one.address.port(), 80);
            EXPECT_EQ(one.type, SOCK_STREAM);
        }
        const auto v4 = co_await getaddrinfo("localhost", 80, stream().family(AF_INET));
        EXPECT_EQ(text_of(v4), "127.0.0.1:80");
        const auto named =
            co_await getaddrinfo("localhost", 80, stream().family(AF_INET).flags(AI_CANONNAME));
        EXPECT_EQ(named.at(0).canonical_name, "localhost");
        const auto back = co_await getnameinfo(Address("127.0.0.1", 9), NI_NUMERICSERV);
        EXPECT_EQ(back.host, "localhost");
        EXPECT_EQ(back.service, "9");
    });
}

TEST(Dns, a_name_that_is_none_is_a_gai_error_of_its_code) {
    asyncio::run([]() -> Coro<> {
        // Refused by the resolver itself, which asks no server for it.
        const auto result = co_await as_result(getaddrinfo("a..b", 80, stream()));
        const auto error = gai_error_of(result.exception());
        EXPECT_TRUE(error.has_value());
        EXPECT_EQ(error.value().code().category(), gai_category());
        EXPECT_EQ(error.value().code().value(), EAI_NONAME);
        EXPECT_STREQ(error.value().what(), "getaddrinfo for 'a..b': Name or service not known");
    });
}

TEST(Dns, an_unknown_service_is_named_in_the_error) {
    asyncio::run([]() -> Coro<> {
        const auto result =
            co_await as_result(getaddrinfo("localhost", "no-such-service", stream()));
        EXPECT_EQ(text_of(result.exception()),
                  "exception: getaddrinfo for 'localhost', service 'no-such-service': Servname not "
                  "supported for ai_socktype");
        const auto alone = co_await as_result(getaddrinfo("", "no-such-service", stream()));
        EXPECT_EQ(text_of(alone.exception()),
                  "exception: getaddrinfo for service 'no-such-service': Servname not supported "
                  "for ai_socktype");
    });
}

// --- What is no question ---

TEST(Dns, what_could_never_be_asked_is_refused_with_a_sentence) {
    run_faked([]() -> Coro<> {
        using namespace std::string_literals;
        const auto zero = co_await as_result(getaddrinfo("local\0host"s, 80));
        EXPECT_EQ(text_of(zero.exception()), "ValueError: a host name must not contain a zero "
                                             "byte; this one goes on after 'local'");
        const auto zero_service = co_await as_result(getaddrinfo("localhost", "ht\0tp"s));
        EXPECT_EQ(text_of(zero_service.exception()),
                  "ValueError: the name of a service must not contain a zero byte; this one goes "
                  "on after 'ht'");
        const auto longer = co_await as_result(getaddrinfo(std::string(254, 'a'), 80));
        EXPECT_EQ(text_of(longer.exception()),
                  "ValueError: a host name has at most 253 bytes, and this one has 254: '" +
                      std::string(60, 'a') + "...'");
        for (const int port : {-1, 65536, 70000, INT32_MAX, INT32_MIN}) {
            const auto result = co_await as_result(getaddrinfo("localhost", port));
            EXPECT_EQ(text_of(result.exception()),
                      "ValueError: a port is a number from 0 to 65535, and not " +
                          std::to_string(port));
        }
        const auto digits = co_await as_result(getaddrinfo("localhost", "99999999999999999999"));
        EXPECT_EQ(text_of(digits.exception()).rfind("ValueError: a port is", 0), 0U);
        EXPECT_EQ(fake.lookups, 0);
        const auto longest = co_await getaddrinfo(std::string(253, 'a'), 0);
        EXPECT_EQ(longest.size(), 1U);
        const auto dotted = co_await getaddrinfo(std::string(253, 'a') + ".", 65535);
        EXPECT_EQ(dotted.size(), 1U);
    });
}

// --- The fake resolver ---

TEST(Dns, a_lookup_works_on_a_thread_while_the_loop_goes_on) {
    run_faked([]() -> Coro<> {
        fake.shut();
        const auto task = create_task(getaddrinfo("slow", 80, stream()));
        co_await begun(1);
        for (int i = 0; i < 100; ++i) co_await asyncio::sleep(0);
        EXPECT_FALSE(task.done());
        fake.let_go();
        const auto all = co_await task;
        EXPECT_EQ(text_of(all), "127.0.0.4:80");
        EXPECT_NE(fake.thread, std::this_thread::get_id());
    });
}

TEST(Dns, each_code_of_the_resolver_is_a_gai_error_with_its_text) {
    run_faked([]() -> Coro<> {
        int codes = 0;
        for (const int code :
             {EAI_AGAIN, EAI_BADFLAGS, EAI_FAIL, EAI_FAMILY, EAI_MEMORY, EAI_NONAME, EAI_SERVICE,
              EAI_SOCKTYPE, EAI_OVERFLOW, EAI_NODATA, EAI_ADDRFAMILY, EAI_SYSTEM}) {
            fake.code = code;
            fake.error_number = code == EAI_SYSTEM ? ECONNREFUSED : EINVAL;
            const auto result = co_await as_result(getaddrinfo("fail.example", 80, stream()));
            ++codes;
            const GaiError error = gai_error_of(result.exception()).value();
            EXPECT_EQ(error.code().value(), code);
            EXPECT_EQ(error.code().category(), gai_category());
            EXPECT_EQ(error.error_number(), code == EAI_SYSTEM ? ECONNREFUSED : 0);
            const std::string text = error.what();
            EXPECT_NE(text.find("fail.example"), std::string::npos) << text;
            EXPECT_NE(text.find(::gai_strerror(code)), std::string::npos) << text;
            EXPECT_EQ(text.find("Connection refused") != std::string::npos, code == EAI_SYSTEM)
                << text;
        }
        EXPECT_EQ(fake.lookups, codes) << "failures are not kept";
        fake.code = EAI_AGAIN;
        const auto again = co_await as_result(getaddrinfo("fail", 80));
        EXPECT_EQ(gai_error_of(again.exception()).value().code(),
                  std::errc::resource_unavailable_try_again);
    });
}

TEST(Dns, what_a_thread_runs_into_reaches_the_await) {
    run_faked([]() -> Coro<> {
        const auto result = co_await as_result(getaddrinfo("memory", 80));
        EXPECT_FALSE(result);
        EXPECT_THROW(result.value(), std::bad_alloc);
        const auto none = co_await as_result(getaddrinfo("none", 80));
        EXPECT_EQ(text_of(none.exception()),
                  "exception: getaddrinfo for 'none': Name or service not known");
    });
}

TEST(Dns, a_thousand_addresses_come_in_the_order_of_the_resolver) {
    run_faked([]() -> Coro<> {
        const auto all = co_await getaddrinfo("many", 7, stream());
        EXPECT_EQ(all.size(), 1000U);
        EXPECT_EQ(all.front().address.text(), "127.0.0.1:7");
        EXPECT_EQ(all.back().address.text(), "127.0.3.232:7");
    });
}

TEST(Dns, who_asks_the_same_waits_for_the_same_answer) {
    run_faked([]() -> Coro<> {
        fake.shut();
        std::vector<Task<std::vector<AddressInfo>>> tasks;
        for (int i = 0; i < 100; ++i) {
            tasks.push_back(create_task(getaddrinfo("slow", 80, stream())));
        }
        co_await begun(1);
        fake.let_go();
        for (const auto& task : tasks) {
            const auto all = co_await task;
            EXPECT_EQ(text_of(all), "127.0.0.4:80");
        }
        EXPECT_EQ(fake.lookups, 1);
        const auto later = co_await getaddrinfo("slow", 80, stream());
        EXPECT_EQ(fake.lookups, 2) << "an answer is not kept";
    });
}

TEST(Dns, whatever_differs_in_the_question_is_another_lookup) {
    run_faked([]() -> Coro<> {
        fake.shut();
        std::vector<Task<std::vector<AddressInfo>>> tasks;
        const auto ask = [&](const char* host, int port, const GetAddrInfoOptions& options) {
            tasks.push_back(create_task(getaddrinfo(host, port, options)));
        };
        ask("slow", 80, stream());
        ask("slow.", 80, stream());
        ask("slow", 81, stream());
        ask("slow", 80, GetAddrInfoOptions());
        ask("slow", 80, stream().family(AF_INET));
        ask("slow", 80, stream().flags(AI_PASSIVE));
        ask("slow", 80, stream().protocol(IPPROTO_TCP));
        for (int i = 0; i < 5; ++i) co_await asyncio::sleep(0);
        fake.let_go();
        for (const auto& task : tasks) {
            const auto all = co_await task;
            EXPECT_EQ(all.size(), 1U);
        }
        EXPECT_EQ(fake.lookups, 7);
    });
}

TEST(Dns, only_some_lookups_are_made_at_a_time_and_all_are_answered) {
    run_faked([]() -> Coro<> {
        fake.shut();
        std::vector<Task<std::vector<AddressInfo>>> tasks;
        for (int i = 0; i < 200; ++i) {
            tasks.push_back(create_task(getaddrinfo("slow" + std::to_string(i), 80)));
        }
        co_await begun(at_a_time());
        fake.let_go();
        std::size_t answers = 0;
        for (const auto& task : tasks) {
            const auto all = co_await task;
            answers += all.size();
        }
        EXPECT_EQ(answers, 200U);
        EXPECT_EQ(fake.lookups, 200);
        EXPECT_EQ(fake.most_at_once, at_a_time());
    });
}

// --- Cancelling ---

TEST(Dns, a_cancel_ends_the_await_at_once_while_the_thread_works_on) {
    run_faked([]() -> Coro<> {
        fake.shut();
        const auto task = create_task(getaddrinfo("slow", 80));
        co_await begun(1);
        EXPECT_EQ(get_running_loop().core().outside_jobs, 1U);
        task.cancel();
        const auto result = co_await as_result(task);
        EXPECT_TRUE(task.cancelled());
        EXPECT_EQ(fake.answered, 0);
        EXPECT_EQ(get_running_loop().core().outside_jobs, 0U);
    });
}

TEST(Dns, a_cancel_of_one_leaves_the_others) {
    run_faked([]() -> Coro<> {
        fake.shut();
        std::vector<Task<std::vector<AddressInfo>>> tasks;
        for (int i = 0; i < 5; ++i) tasks.push_back(create_task(getaddrinfo("slow", 80)));
        co_await begun(1);
        for (const int i : {0, 2, 4}) { // the first, one in the middle, the last
            tasks[static_cast<std::size_t>(i)].cancel();
            const auto result = co_await as_result(tasks[static_cast<std::size_t>(i)]);
            EXPECT_FALSE(result);
        }
        fake.let_go();
        const auto one = co_await tasks[1];
        const auto three = co_await tasks[3];
        EXPECT_EQ(text_of(one), "127.0.0.4:80");
        EXPECT_EQ(text_of(three), "127.0.0.4:80");
        EXPECT_EQ(fake.lookups, 1);
    });
}

TEST(Dns, who_asks_again_after_a_cancel_has_the_answer_of_the_thread_that_is_at_work) {
    run_faked([]() -> Coro<> {
        fake.shut();
        const auto first = create_task(getaddrinfo("slow", 80));
        co_await begun(1);
        first.cancel();
        co_await asyncio::sleep(0);
        co_await asyncio::sleep(0);
        EXPECT_TRUE(first.done());
        const auto second = create_task(getaddrinfo("slow", 80));
        co_await asyncio::sleep(0);
        fake.let_go();
        const auto all = co_await second;
        EXPECT_EQ(text_of(all), "127.0.0.4:80");
        EXPECT_EQ(fake.lookups, 1);
    });
}

TEST(Dns, a_lookup_that_is_cancelled_before_its_turn_is_never_made) {
    run_faked([]() -> Coro<> {
        fake.shut();
        std::vector<Task<std::vector<AddressInfo>>> tasks;
        for (int i = 0; i < 40; ++i) {
            tasks.push_back(create_task(getaddrinfo("slow" + std::to_string(i), 80)));
        }
        const int working = at_a_time();
        co_await begun(working);
        for (const auto& task : tasks) task.cancel();
        for (const auto& task : tasks) {
            const auto result = co_await as_result(task);
            EXPECT_FALSE(result);
        }
        fake.let_go();
        const auto other = co_await getaddrinfo("other", 80);
        EXPECT_EQ(text_of(other), "127.0.0.5:80");
        EXPECT_EQ(fake.lookups, working + 1) << fake.names();
    });
}

TEST(Dns, a_cancel_may_come_at_any_turn) {
    int cancelled = 0;
    int answered = 0;
    for (int turn = 0; turn < 12; ++turn) {
        run_faked([&]() -> Coro<> {
            const auto task = create_task(getaddrinfo("example", 80));
            const auto other = create_task(getaddrinfo("example", 80));
            for (int i = 0; i < turn; ++i) co_await asyncio::sleep(0);
            task.cancel();
            const auto result = co_await as_result(task);
            (result ? answered : cancelled) += 1;
            const auto all = co_await other;
            EXPECT_EQ(text_of(all), "127.0.0.7:80");
        });
    }
    EXPECT_GT(cancelled, 0);
    EXPECT_EQ(cancelled + answered, 12);
}

TEST(Dns, the_answer_and_the_cancel_of_one_turn_are_told_apart) {
    run_faked([]() -> Coro<> {
        fake.shut();
        const auto first = create_task(getaddrinfo("slow", 80));
        const auto second = create_task(getaddrinfo("slow", 80));
        co_await begun(1);
        // Both are woken by the answer; the second is cancelled before it has gone on.
        EventLoop& loop = get_running_loop();
        fake.let_go();
        while (loop.core().outside_jobs != 0) co_await asyncio::sleep(0);
        if (!second.done()) second.cancel();
        const auto all = co_await first;
        const auto result = co_await as_result(second);
        EXPECT_EQ(all.size(), 1U);
        EXPECT_TRUE(second.cancelled() || result.value().size() == 1);
    });
}

TEST(Dns, a_timeout_is_no_longer_than_it_says_and_run_does_not_wait_for_the_thread) {
    fake.reset();
    fake.shut();
    bool timed_out = false;
    asyncio::run(
        [](bool* out) -> Coro<> {
            const auto first = create_task(getaddrinfo("slow", 80));
            co_await begun(1);
            const auto result =
                co_await as_result(asyncio::wait_for(getaddrinfo("slow", 80), 10ms));
            *out =
                thrown_by([&] { return result.value(); }).find("time is up") != std::string::npos;
        }(&timed_out),
        faked());
    EXPECT_TRUE(timed_out);
    EXPECT_EQ(fake.answered, 0) << "run() has returned, and the thread is at work";
    fake.let_go();
    wait_until([] { return fake.answered == 1 && fake.lists == 0; });
}

// --- A loop that closes ---

TEST(Dns, a_loop_may_be_closed_while_lookups_run_and_wait_for_their_turn) {
    fake.reset();
    fake.shut();
    {
        asyncio_test::Reports reports;
        const auto loop = asyncio::new_event_loop(LoopOptions().system_calls(fake_calls()));
        reports.watch(*loop);
        std::vector<Task<std::vector<AddressInfo>>> tasks;
        for (int i = 0; i < 40; ++i) {
            tasks.push_back(create_task(*loop, getaddrinfo("slow" + std::to_string(i % 30), 80)));
        }
        for (int i = 0; i < 3; ++i) {
            loop->stop();
            loop->run_forever();
        }
        wait_until([] { return fake.lookups >= 4; });
        loop->close();
        EXPECT_EQ(reports.count("pending"), 40U) << reports.text();
    }
    const int working = fake.lookups;
    EXPECT_EQ(fake.answered, 0);
    fake.let_go();
    wait_until([&] { return fake.answered == working && fake.lists == 0; });
    EXPECT_EQ(fake.lookups, working);
}

TEST(Dns, the_table_and_the_clock_may_be_gone_when_a_thread_comes_to_its_end) {
    fake.reset();
    fake.shut();
    {
        auto table = std::make_unique<SystemCalls>(fake_calls());
        asyncio::run(
            []() -> Coro<> {
                const auto task = create_task(getaddrinfo("slow", 80));
                co_await begun(1);
            }(),
            RunOptions().loop(LoopOptions().system_calls(*table)));
        std::memset(static_cast<void*>(table.get()), 0, sizeof *table);
    }
    fake.let_go();
    wait_until([] { return fake.answered == 1 && fake.lists == 0; });
}

TEST(Dns, without_a_thread_the_await_throws_and_the_next_one_may_succeed) {
    static std::atomic<bool> refuse = false;
    SystemCalls table = fake_calls();
    table.pthread_create = [](pthread_t* thread, const pthread_attr_t* attributes,
                              void* (*start)(void*), void* argument) {
        return refuse ? EAGAIN : ::pthread_create(thread, attributes, start, argument);
    };
    fake.reset();
    refuse = true;
    asyncio::run(
        []() -> Coro<> {
            const auto result = co_await as_result(getaddrinfo("example", 80));
            EXPECT_NE(text_of(result.exception()).find("cannot start a thread"), std::string::npos)
                << text_of(result.exception());
            refuse = false;
            const auto all = co_await getaddrinfo("example", 80);
            EXPECT_EQ(text_of(all), "127.0.0.7:80");
        }(),
        RunOptions().loop(LoopOptions().system_calls(table)));
    wait_until([] { return fake.lists == 0; });
}

// --- Names of addresses ---

TEST(Dns, getnameinfo_asks_on_a_thread_once_for_all_who_ask_the_same) {
    run_faked([]() -> Coro<> {
        fake.shut();
        const Address slow("127.0.0.9", 1);
        std::vector<Task<NameInfo>> tasks;
        for (int i = 0; i < 10; ++i) tasks.push_back(create_task(getnameinfo(slow)));
        co_await begun(1);
        tasks[3].cancel();
        fake.let_go();
        for (std::size_t i = 0; i < tasks.size(); ++i) {
            const auto result = co_await as_result(tasks[i]);
            EXPECT_EQ(static_cast<bool>(result), i != 3);
            if (!result) continue;
            EXPECT_EQ(result.value().host, "host-9");
            EXPECT_EQ(result.value().service, "service-1");
        }
        EXPECT_EQ(fake.lookups, 1);
        const auto half = co_await getnameinfo(Address("127.0.0.9", 2), NI_NUMERICHOST);
        EXPECT_EQ(half.service, "service-2");
        EXPECT_EQ(fake.lookups, 2);
    });
}

TEST(Dns, getnameinfo_of_numbers_asks_nobody) {
    run_faked([]() -> Coro<> {
        constexpr int numeric = NI_NUMERICHOST | NI_NUMERICSERV;
        auto info = co_await getnameinfo(Address("127.0.0.1", 80), numeric);
        const auto& [host, service] = info;
        EXPECT_EQ(host, "127.0.0.1");
        EXPECT_EQ(service, "80");
        info = co_await getnameinfo(Address("2001:db8::1", 443), numeric);
        EXPECT_EQ(info.host, "2001:db8::1");
        EXPECT_EQ(fake.lookups, 0);
        const auto none = co_await as_result(getnameinfo(Address(), numeric));
        EXPECT_EQ(text_of(none.exception()),
                  "exception: getnameinfo for no address: ai_family not supported");
    });
}

TEST(Dns, getnameinfo_names_the_address_in_its_error) {
    run_faked([]() -> Coro<> {
        fake.code = EAI_AGAIN;
        const auto result = co_await as_result(getnameinfo(Address("127.0.0.1", 80)));
        EXPECT_EQ(text_of(result.exception()), "exception: getnameinfo for 127.0.0.1:80: Temporary "
                                               "failure in name resolution");
    });
}

// --- Virtual time ---

TEST(Dns, a_lookup_takes_no_virtual_time) {
    fake.reset();
    asyncio::testing::VirtualClock clock;
    asyncio::run(
        []() -> Coro<> {
            EventLoop& loop = get_running_loop();
            const auto before = loop.time();
            const auto all = co_await asyncio::wait_for(getaddrinfo("example", 80), 1ms);
            EXPECT_EQ(text_of(all), "127.0.0.7:80");
            EXPECT_EQ(loop.time(), before);
        }(),
        RunOptions().loop(LoopOptions().system_calls(fake_calls()).clock(clock)));
    wait_until([] { return fake.lists == 0; });
}

TEST(Dns, a_lookup_that_nobody_waits_for_does_not_stop_virtual_time) {
    fake.reset();
    fake.shut();
    asyncio::testing::VirtualClock clock;
    asyncio::run(
        []() -> Coro<> {
            const auto task = create_task(getaddrinfo("slow", 80));
            co_await begun(1);
            task.cancel();
            const auto result = co_await as_result(task);
            EXPECT_FALSE(result);
            co_await asyncio::sleep(1h);
        }(),
        RunOptions().loop(LoopOptions().system_calls(fake_calls()).clock(clock)));
    fake.let_go();
    wait_until([] { return fake.answered == 1 && fake.lists == 0; });
}

// --- Under ThreadSanitizer ---

TEST(DnsThreads, stress_of_lookups_cancels_and_loops_that_close) {
    fake.reset();
    int tasks_made = 0;
    for (int round = 0; round < 60; ++round) {
        const int lookups_before = fake.lookups;
        asyncio_test::Reports reports;
        const auto loop = asyncio::new_event_loop(LoopOptions().system_calls(fake_calls()));
        reports.watch(*loop);
        std::vector<Task<std::vector<AddressInfo>>> tasks;
        for (int i = 0; i < 50; ++i) {
            const std::string name = "name" + std::to_string(i * 7 % 20);
            tasks.push_back(create_task(*loop, getaddrinfo(name, 80)));
            ++tasks_made;
        }
        for (int turn = 0; turn < round; ++turn) {
            loop->stop();
            loop->run_forever();
            tasks[static_cast<std::size_t>(turn * 13 % 50)].cancel();
            // Else a busy machine may close each loop before a thread has begun anything.
            if (turn == 2 && round % 4 == 0)
                wait_until([&] { return fake.lookups > lookups_before; });
        }
    }
    EXPECT_EQ(tasks_made, 3000);
    EXPECT_GE(fake.lookups, 14);
    wait_until([] { return fake.answered == fake.lookups && fake.lists == 0; });
}

TEST(DnsThreads, loops_of_several_threads_look_names_up_at_the_same_time) {
    fake.reset();
    std::atomic<int> answers = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            asyncio::run(
                [](std::atomic<int>* count) -> Coro<> {
                    for (int i = 0; i < 50; ++i) {
                        const auto both =
                            co_await asyncio::gather(getaddrinfo("one" + std::to_string(i % 3), 80),
                                                     getnameinfo(Address("127.0.0.1", 5)));
                        *count += static_cast<int>(std::get<0>(both).size());
                    }
                }(&answers),
                faked());
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(answers, 200);
    wait_until([] { return fake.answered == fake.lookups && fake.lists == 0; });
}
