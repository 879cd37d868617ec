// SPDX-License-Identifier: MIT
// `openssl s_client` and `openssl s_server` at the other end.
#include "peers/certificates.hpp"
#include "peers/echo.hpp"

namespace {

using namespace asyncio_test;
namespace ssl = asyncio::ssl;

#define ASYNCIO_NEED_OPENSSL ASYNCIO_NEED("openssl", "openssl")

std::string client_of(const Certificates& certificates, const EchoServer& server) {
    return "openssl s_client -brief -nocommands -verify_return_error -CAfile " +
           certificates.authority.file() + " -connect 127.0.0.1:" + server.port();
}
// Takes one connection, and prints only what comes.
std::string server_with(const Certificates& certificates, std::uint16_t port) {
    return "openssl s_server -quiet -accept 127.0.0.1:" + std::to_string(port) +
           " -naccept 1 -cert " + certificates.issued.certificate + " -key " +
           certificates.issued.key;
}
// It does not say when it is ready.
Coro<Streams> open_when_there(std::uint16_t port, asyncio::ConnectionOptions options) {
    for (;;) {
        auto opened =
            co_await asyncio::as_result(asyncio::open_connection("127.0.0.1", port, options));
        if (opened.has_value()) co_return *std::move(opened);
        if (failure_of(opened).find("Connection refused") == std::string::npos)
            std::rethrow_exception(opened.exception());
        co_await asyncio::sleep(0.005);
    }
}

// 1 MiB to our echo and back.
Coro<> expect_echo_through(Program& program) {
    const std::string data = some_bytes(mebibyte);
    auto writing = asyncio::create_task(write_all(program.in(), data));
    const std::string back = co_await program.out().readexactly(data.size());
    co_await writing;
    EXPECT_TRUE(back == data) << "what came back is not what was sent";
}

class PeersOpenssl : public testing::TestWithParam<std::string> {
  protected:
    void SetUp() override { ASYNCIO_NEED_OPENSSL; }
    // "-tls1_2" and "TLSv1.2".
    static std::string option() { return " -tls1_" + GetParam().substr(6); }
};

TEST_P(PeersOpenssl, s_client) {
    run_limited([]() -> Coro<> {
        const Certificates certificates;
        const ssl::Context context = certificates.server();
        auto server = co_await EchoServer::start(asyncio::ServerOptions().ssl(context));
        auto openssl = co_await start(client_of(certificates, *server) + option());
        co_await expect_echo_through(*openssl);
        // It ends with a close_notify.
        co_await expect_success(*openssl);
        EXPECT_NE(openssl->errors().find("Protocol version: " + GetParam()), std::string::npos)
            << openssl->errors();
        EXPECT_NE(openssl->errors().find("Verification: OK"), std::string::npos)
            << openssl->errors();
        const std::string end = co_await server->next_end();
        EXPECT_EQ(end, "end after 1048576");
        co_await server->close();
    });
}

// Killed, it cannot say that it ends: what came may not be all.
TEST_P(PeersOpenssl, s_client_that_is_killed) {
    run_limited([]() -> Coro<> {
        const Certificates certificates;
        const ssl::Context context = certificates.server();
        auto server = co_await EchoServer::start(asyncio::ServerOptions().ssl(context));
        auto openssl = co_await start(client_of(certificates, *server) + option());
        openssl->in().write("hello");
        const std::string back = co_await openssl->out().readexactly(5);
        EXPECT_EQ(back, "hello");
        openssl->signal(SIGKILL);
        const std::string end = co_await server->next_end();
        EXPECT_EQ(end, "cut off after 5");
        co_await server->close();
    });
}

TEST_P(PeersOpenssl, s_server) {
    run_limited([]() -> Coro<> {
        const Certificates certificates;
        const std::uint16_t port = free_port();
        auto openssl = co_await start(server_with(certificates, port) + option());
        const ssl::Context context = certificates.client();
        asyncio::ConnectionOptions options;
        options.ssl(context);
        auto streams = co_await open_when_there(port, options);
        auto& [reader, writer] = streams;
        EXPECT_EQ(writer.get_extra_info(asyncio::ssl_object)->version(), GetParam());
        const auto certificate = writer.get_extra_info(asyncio::ssl_object)->getpeercert();
        EXPECT_EQ(certificate.value().subject.at(0).second, "a server's");

        // What it hears goes out of its output, and what it reads comes to us.
        const std::string data = some_bytes(mebibyte);
        auto there = asyncio::create_task(write_all(writer, data));
        const std::string at_it = co_await openssl->out().readexactly(data.size());
        co_await there;
        EXPECT_TRUE(at_it == data);
        auto back = asyncio::create_task(write_all(openssl->in(), data));
        const std::string at_us = co_await reader.readexactly(data.size());
        co_await back;
        EXPECT_TRUE(at_us == data);

        // Our close_notify ends it, and it answers by its own.
        writer.close();
        co_await writer.wait_closed();
        co_await expect_success(*openssl);
    });
}

TEST_P(PeersOpenssl, s_server_that_ends) {
    run_limited([]() -> Coro<> {
        const Certificates certificates;
        const std::uint16_t port = free_port();
        auto openssl = co_await start(server_with(certificates, port) + option());
        const ssl::Context context = certificates.client();
        asyncio::ConnectionOptions options;
        options.ssl(context);
        auto streams = co_await open_when_there(port, options);
        openssl->in().write("good-bye");
        const std::string text = co_await streams.first.readexactly(8);
        EXPECT_EQ(text, "good-bye");
        openssl->in().write_eof();
        const std::string rest = co_await streams.first.read();
        EXPECT_EQ(rest, "");
        streams.second.close();
        co_await streams.second.wait_closed();
    });
}

TEST_P(PeersOpenssl, s_server_that_is_killed) {
    run_limited([]() -> Coro<> {
        const Certificates certificates;
        const std::uint16_t port = free_port();
        auto openssl = co_await start(server_with(certificates, port) + option());
        const ssl::Context context = certificates.client();
        asyncio::ConnectionOptions options;
        options.ssl(context);
        auto streams = co_await open_when_there(port, options);
        openssl->in().write("half of");
        const std::string text = co_await streams.first.readexactly(7);
        EXPECT_EQ(text, "half of");
        openssl->signal(SIGKILL);
        auto rest = co_await asyncio::as_result(streams.first.read());
        EXPECT_TRUE(rest.failed_with<ssl::EOFError>()) << failure_of(rest);
    });
}

TEST_P(PeersOpenssl, s_client_shows_a_certificate) {
    run_limited([]() -> Coro<> {
        Certificates certificates;
        const Issued shown = certificates.issue({"DNS:client.example"}, "a client's");
        ssl::Context context = certificates.server();
        const std::string roots = certificates.authority.file();
        ssl::VerifyLocations locations;
        locations.cafile = roots;
        context.load_verify_locations(locations);
        context.set_verify_mode(ssl::CERT_REQUIRED);
        asyncio::Queue<std::string> names;
        const auto handler = [&names](StreamReader reader, StreamWriter writer) -> Coro<> {
            const auto certificate = writer.get_extra_info(asyncio::ssl_object)->getpeercert();
            names.put_nowait(certificate.value().subject.at(0).second);
            const std::string rest = co_await reader.read();
            EXPECT_EQ(rest, "");
        };
        asyncio::ServerOptions options;
        options.ssl(context);
        auto server = co_await asyncio::start_server(handler, "127.0.0.1", 0, options);
        const std::string command = "openssl s_client -brief" + option() + " -connect 127.0.0.1:" +
                                    std::to_string(server.sockets().at(0).port());
        auto good = co_await start(command + " -cert " + shown.certificate + " -key " + shown.key);
        const std::string name = co_await names.get();
        EXPECT_EQ(name, "a client's");
        co_await expect_success(*good);

        // Without one it is turned away, and both say so.
        Report report(asyncio::get_running_loop());
        auto bad = co_await start(command);
        const std::string text = co_await report.text();
        EXPECT_NE(text.find("PEER_DID_NOT_RETURN_A_CERTIFICATE"), std::string::npos) << text;
        co_await bad->out().read(); // until it has heard of it
        const std::string refused = co_await bad->end();
        EXPECT_EQ(refused, "exited with 1");
        EXPECT_NE(bad->errors().find("alert"), std::string::npos) << bad->errors();
        server.close();
        co_await server.wait_closed();
    });
}

TEST_P(PeersOpenssl, s_server_asks_for_a_certificate) {
    run_limited([]() -> Coro<> {
        Certificates certificates;
        const Issued shown = certificates.issue({"DNS:client.example"}, "a client's");
        const std::uint16_t port = free_port();
        const std::string command = server_with(certificates, port) + option() +
                                    " -Verify 1 -verify_return_error -CAfile " +
                                    certificates.authority.file();
        ssl::Context context = certificates.client();
        asyncio::ConnectionOptions without;
        without.ssl(context);
        auto refusing = co_await start(command);
        // In TLS 1.3 a client hears of it only after its own handshake.
        std::string failure;
        try {
            const auto streams = co_await open_when_there(port, without);
            auto read = co_await asyncio::as_result(streams.first.read());
            EXPECT_TRUE(read.failed_with<ssl::Error>());
            failure = failure_of(read);
        } catch (const ssl::Error& error) {
            failure = error.what();
        }
        EXPECT_NE(failure.find("alert"), std::string::npos) << failure;
        co_await refusing->end(); // it listens until then

        context.load_cert_chain(shown.certificate, shown.key);
        asyncio::ConnectionOptions with;
        with.ssl(context);
        auto openssl = co_await start(command);
        auto streams = co_await open_when_there(port, with);
        streams.second.write("hello\n");
        co_await openssl->line_with("hello");
        EXPECT_NE(openssl->errors().find("CN = a client's"), std::string::npos)
            << openssl->errors();
        streams.second.close();
        co_await streams.second.wait_closed();
    });
}

INSTANTIATE_TEST_SUITE_P(Versions, PeersOpenssl, testing::Values("TLSv1.2", "TLSv1.3"),
                         [](const testing::TestParamInfo<std::string>& tested) {
                             return tested.param == "TLSv1.2" ? "tls_1_2" : "tls_1_3";
                         });

// What a client asks for by SNI and ALPN, and gets.
TEST(PeersOpensslNames, s_client_asks_for_a_host_and_a_protocol) {
    ASYNCIO_NEED_OPENSSL;
    run_limited([]() -> Coro<> {
        Certificates certificates;
        const Issued of_other = certificates.issue({"DNS:other.example"}, "another's");
        ssl::Context other(ssl::PROTOCOL_TLS_SERVER);
        other.load_cert_chain(of_other.certificate, of_other.key);
        other.set_alpn_protocols({"h2", "http/1.1"});
        ssl::Context context = certificates.server();
        context.set_alpn_protocols({"h2", "http/1.1"});
        context.set_servername_callback(
            [other](ssl::Object& object, std::optional<std::string_view> name,
                    const ssl::Context&) -> std::optional<ssl::AlertDescription> {
                if (name == "nobody.example") return ssl::ALERT_DESCRIPTION_UNRECOGNIZED_NAME;
                if (name == "other.example") object.set_context(other);
                return std::nullopt;
            });
        asyncio::Queue<std::string> seen;
        const auto handler = [&seen](StreamReader reader, StreamWriter writer) -> Coro<> {
            const ssl::Object& tls = *writer.get_extra_info(asyncio::ssl_object);
            seen.put_nowait(tls.server_hostname() + " in " + tls.selected_alpn_protocol());
            co_await reader.read();
        };
        asyncio::ServerOptions options;
        options.ssl(context);
        auto server = co_await asyncio::start_server(handler, "127.0.0.1", 0, options);
        const std::string command =
            "openssl s_client -verify_return_error -CAfile " + certificates.authority.file() +
            " -connect 127.0.0.1:" + std::to_string(server.sockets().at(0).port());

        auto first = co_await start(command + " -verify_hostname localhost -servername localhost "
                                              "-alpn spdy/1,http/1.1");
        const std::string asked = co_await seen.get();
        EXPECT_EQ(asked, "localhost in http/1.1");
        co_await expect_success(*first);
        EXPECT_NE(first->rest().find("ALPN protocol: http/1.1"), std::string::npos)
            << first->rest();

        auto second = co_await start(command + " -verify_hostname other.example "
                                               "-servername other.example -alpn http/1.1,h2");
        const std::string other_asked = co_await seen.get();
        EXPECT_EQ(other_asked, "other.example in h2");
        co_await expect_success(*second);

        Report report(asyncio::get_running_loop());
        auto third = co_await start(command + " -servername nobody.example");
        co_await report.text();
        const std::string third_status = co_await third->end();
        EXPECT_EQ(third_status, "exited with 1");
        EXPECT_NE(third->errors().find("unrecognized name"), std::string::npos) << third->errors();
        server.close();
        co_await server.wait_closed();
    });
}

TEST(PeersOpensslNames, s_server_is_asked_for_a_host_and_a_protocol) {
    ASYNCIO_NEED_OPENSSL;
    run_limited([]() -> Coro<> {
        Certificates certificates;
        const Issued of_other = certificates.issue({"DNS:other.example"}, "another's");
        ssl::Context context = certificates.client();
        context.set_alpn_protocols({"http/1.1", "h2"});
        for (const std::string host : {"localhost", "other.example"}) {
            const std::uint16_t port = free_port();
            auto openssl = co_await start(
                server_with(certificates, port) + " -alpn h2,http/1.1 -servername other.example" +
                " -cert2 " + of_other.certificate + " -key2 " + of_other.key);
            asyncio::ConnectionOptions options;
            options.ssl(context).server_hostname(host);
            auto streams = co_await open_when_there(port, options);
            const ssl::Object& tls = *streams.second.get_extra_info(asyncio::ssl_object);
            // The server's choice; it has none for the other host.
            EXPECT_EQ(tls.selected_alpn_protocol(), host == "localhost" ? "h2" : "");
            EXPECT_EQ(tls.getpeercert().value().subject_alt_names.at(0).second, host);
            streams.second.close();
            co_await streams.second.wait_closed();
        }
    });
}

TEST(PeersOpensslNames, s_server_for_another_host_is_refused) {
    ASYNCIO_NEED_OPENSSL;
    run_limited([]() -> Coro<> {
        const Certificates certificates;
        const std::uint16_t port = free_port();
        auto openssl = co_await start(server_with(certificates, port));
        const ssl::Context context = certificates.client();
        asyncio::ConnectionOptions options;
        options.ssl(context).server_hostname("example.org");
        auto opened = co_await asyncio::as_result(open_when_there(port, options));
        EXPECT_TRUE(opened.failed_with<ssl::CertVerificationError>()) << failure_of(opened);
        EXPECT_NE(failure_of(opened).find("example.org"), std::string::npos) << failure_of(opened);
        co_await openssl->end();
        EXPECT_NE(openssl->errors().find("alert bad certificate"), std::string::npos)
            << openssl->errors();
    });
}

} // namespace
