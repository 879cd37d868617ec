// SPDX-License-Identifier: MIT
// curl at a small HTTP reply of ours, and nginx as an origin, with and without TLS. What is spoken
// here is no more of HTTP than they need.
#include "peers/certificates.hpp"
#include "peers/echo.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>

namespace {

using namespace asyncio_test;
namespace ssl = asyncio::ssl;

#define ASYNCIO_NEED_CURL ASYNCIO_NEED("curl", "curl")
#define ASYNCIO_NEED_NGINX ASYNCIO_NEED("nginx", "nginx")

struct Head {
    std::string first; // the line without its end
    std::size_t content_length = 0;
};

// A request's or reply's head; nothing at the end of the connection.
Coro<std::optional<Head>> read_head(StreamReader reader) {
    const std::string line = co_await reader.readline();
    if (line.empty()) co_return std::nullopt;
    Head head;
    head.first = line.substr(0, line.find('\r'));
    for (;;) {
        std::string field = co_await reader.readline();
        if (field == "\r\n" || field.empty()) break;
        std::transform(field.begin(), field.end(), field.begin(),
                       [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
        const std::string_view name = "content-length: ";
        if (field.starts_with(name))
            std::from_chars(field.data() + name.size(), field.data() + field.size(),
                            head.content_length);
    }
    co_return head;
}

// --- curl asks us

// Replies to each request of a connection with its first line and its body.
Coro<> reply(StreamReader reader, StreamWriter writer) {
    for (;;) {
        const std::optional<Head> head = co_await read_head(reader);
        if (!head) break;
        std::string body = head->first + "\n";
        if (head->content_length > 0) body += co_await reader.readexactly(head->content_length);
        writer.write("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " +
                     std::to_string(body.size()) + "\r\n\r\n");
        writer.write(body);
        co_await writer.drain();
    }
    writer.close();
}

Coro<> expect_curl(std::string options, std::string url, std::string reply) {
    auto curl = co_await start("curl --silent --show-error --noproxy * --max-time 15 " + options +
                               " " + url);
    co_await expect_success(*curl);
    EXPECT_EQ(curl->rest(), reply);
}

TEST(PeersCurl, gets_a_reply) {
    ASYNCIO_NEED_CURL;
    run_limited([]() -> Coro<> {
        auto server = co_await asyncio::start_server(reply, "127.0.0.1", 0);
        const std::string base =
            "http://127.0.0.1:" + std::to_string(server.sockets().at(0).port());
        co_await expect_curl("", base + "/one", "GET /one HTTP/1.1\n");
        // Both over one connection.
        co_await expect_curl("", base + "/one " + base + "/two",
                             "GET /one HTTP/1.1\nGET /two HTTP/1.1\n");
        server.close();
        co_await server.wait_closed();
    });
}

TEST(PeersCurl, posts_a_file) {
    ASYNCIO_NEED_CURL;
    run_limited([]() -> Coro<> {
        const TemporaryFolder folder;
        const std::string bytes = some_bytes(mebibyte);
        std::ofstream(folder.file("body"), std::ios::binary) << bytes;
        auto server = co_await asyncio::start_server(reply, "127.0.0.1", 0);
        // Without the "Expect: 100-continue", which we do not answer.
        co_await expect_curl("--header Expect: --data-binary @" + folder.file("body"),
                             "http://127.0.0.1:" + std::to_string(server.sockets().at(0).port()) +
                                 "/",
                             "POST / HTTP/1.1\n" + bytes);
        server.close();
        co_await server.wait_closed();
    });
}

TEST(PeersCurl, gets_a_reply_over_tls_and_at_a_path) {
    ASYNCIO_NEED_CURL;
    run_limited([]() -> Coro<> {
        const Certificates certificates;
        asyncio::ServerOptions options;
        options.ssl(certificates.server());
        auto server = co_await asyncio::start_server(reply, "127.0.0.1", 0, options);
        const std::string port = std::to_string(server.sockets().at(0).port());
        for (const std::string version : {"--tlsv1.2 --tls-max 1.2", "--tlsv1.3"}) {
            co_await expect_curl(version + " --cacert " + certificates.authority.file() +
                                     " --resolve localhost:" + port + ":127.0.0.1",
                                 "https://localhost:" + port + "/", "GET / HTTP/1.1\n");
        }
        // Whom it does not trust it does not ask; our side is told of that.
        Report report(asyncio::get_running_loop());
        const asyncio_test::Authority other;
        auto refusing = co_await start("curl --silent --noproxy * --cacert " + other.file() +
                                       " https://127.0.0.1:" + port);
        const std::string text = co_await report.text();
        EXPECT_NE(text.find("unknown ca"), std::string::npos) << text;
        const std::string status = co_await refusing->end();
        EXPECT_EQ(status, "exited with 60") << refusing->errors();
        server.close();
        co_await server.wait_closed();

        const std::string path = certificates.authority.folder().file("socket");
        auto at_path = co_await asyncio::start_unix_server(reply, path);
        co_await expect_curl("--unix-socket " + path, "http://here/", "GET / HTTP/1.1\n");
        at_path.close();
        co_await at_path.wait_closed();
    });
}

// --- we ask nginx

class Nginx {
  public:
    // With the files `index.html` and `much`; at a port with TLS, and at a path without.
    static Coro<std::unique_ptr<Nginx>> start(const Certificates& certificates) {
        std::unique_ptr<Nginx> nginx(new Nginx());
        const TemporaryFolder& folder = nginx->folder;
        const std::string file = folder.file("nginx.conf");
        std::ofstream(folder.file("index.html")) << "hello\n";
        std::ofstream(folder.file("much"), std::ios::binary) << some_bytes(mebibyte);
        std::ofstream(file) << "daemon off;\nmaster_process off;\npid " << folder.file("pid")
                            << ";\nerror_log stderr notice;\nevents {}\nhttp {\n  access_log off;\n"
                            << "  client_body_temp_path " << folder.file("body")
                            << ";\n  proxy_temp_path " << folder.file("proxy")
                            << ";\n  fastcgi_temp_path " << folder.file("fastcgi")
                            << ";\n  uwsgi_temp_path " << folder.file("uwsgi")
                            << ";\n  scgi_temp_path " << folder.file("scgi")
                            << ";\n  keepalive_timeout 10s;\n  server {\n    listen 127.0.0.1:"
                            << nginx->port << " ssl;\n    listen unix:" << nginx->path()
                            << ";\n    ssl_certificate " << certificates.issued.certificate
                            << ";\n    ssl_certificate_key " << certificates.issued.key
                            << ";\n    ssl_protocols TLSv1.2 TLSv1.3;\n    root " << folder.path()
                            << ";\n  }\n}\n";
        nginx->program = co_await asyncio_test::start("nginx -p " + folder.path() + " -c " + file);
        for (;;) {
            auto opened = co_await asyncio::as_result(asyncio::open_unix_connection(nginx->path()));
            if (opened.has_value()) break;
            if (nginx->program->out().at_eof()) break;
            co_await asyncio::sleep(0.005);
        }
        co_return nginx;
    }
    std::string path() const { return folder.file("socket"); }

    const TemporaryFolder folder;
    const std::uint16_t port = free_port();
    std::unique_ptr<Program> program;

  private:
    Nginx() = default;
};

Coro<std::string> get(StreamReader reader, StreamWriter writer, std::string target,
                      std::string more = "") {
    writer.write("GET " + target + " HTTP/1.1\r\nHost: localhost\r\n" + more + "\r\n");
    const std::optional<Head> head = co_await read_head(reader);
    if (!head) co_return "nothing";
    if (head->first != "HTTP/1.1 200 OK") co_return head->first;
    std::string body = co_await reader.readexactly(head->content_length);
    co_return body;
}

class PeersNginx : public testing::TestWithParam<ssl::TLSVersion> {
  protected:
    void SetUp() override { ASYNCIO_NEED_NGINX; }
};

TEST_P(PeersNginx, is_asked_over_tls) {
    run_limited([]() -> Coro<> {
        const Certificates certificates;
        auto nginx = co_await Nginx::start(certificates);
        ssl::Context context = certificates.client();
        context.set_minimum_version(GetParam());
        context.set_maximum_version(GetParam());
        context.set_alpn_protocols({"http/1.1"});
        asyncio::ConnectionOptions options;
        options.ssl(context).server_hostname("localhost");
        auto streams = co_await asyncio::open_connection("127.0.0.1", nginx->port, options);
        auto& [reader, writer] = streams;
        EXPECT_EQ(writer.get_extra_info(asyncio::ssl_object)->selected_alpn_protocol(), "http/1.1");
        std::string body = co_await get(reader, writer, "/");
        EXPECT_EQ(body, "hello\n");
        body = co_await get(reader, writer, "/much");
        EXPECT_TRUE(body == some_bytes(mebibyte));
        body = co_await get(reader, writer, "/nothing");
        EXPECT_EQ(body, "HTTP/1.1 404 Not Found");
        // The rest of that reply, and the end that it was asked for.
        writer.write("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        const std::string rest = co_await reader.read();
        EXPECT_TRUE(rest.ends_with("\r\n\r\nhello\n")) << rest;
        writer.close();
        co_await writer.wait_closed();
    });
}
INSTANTIATE_TEST_SUITE_P(Versions, PeersNginx,
                         testing::Values(ssl::TLSVersion::TLSv1_2, ssl::TLSVersion::TLSv1_3),
                         [](const testing::TestParamInfo<ssl::TLSVersion>& tested) {
                             return tested.param == ssl::TLSVersion::TLSv1_2 ? "tls_1_2"
                                                                             : "tls_1_3";
                         });

TEST(PeersNginxPlainly, many_ask_it_at_once) {
    ASYNCIO_NEED_NGINX;
    run_limited([]() -> Coro<> {
        const Certificates certificates;
        auto nginx = co_await Nginx::start(certificates);
        std::vector<asyncio::Task<std::string>> all;
        const auto ask = [](std::string path) -> Coro<std::string> {
            auto streams = co_await asyncio::open_unix_connection(path);
            std::string body = co_await get(streams.first, streams.second, "/much");
            streams.second.close();
            co_await streams.second.wait_closed();
            co_return body;
        };
        for (int i = 0; i < 50; ++i) all.push_back(asyncio::create_task(ask, nginx->path()));
        const std::string expected = some_bytes(mebibyte);
        for (auto& one : all) {
            const std::string body = co_await one;
            EXPECT_TRUE(body == expected);
        }
    });
}

// Plain text at a port with TLS: it answers in plain text, which is what our error is about.
TEST(PeersNginxPlainly, is_taken_for_one_that_speaks_tls) {
    ASYNCIO_NEED_NGINX;
    run_limited([]() -> Coro<> {
        const Certificates certificates;
        auto nginx = co_await Nginx::start(certificates);
        asyncio::ConnectionOptions options;
        options.ssl(certificates.client()).server_hostname("localhost");
        auto opened =
            co_await asyncio::as_result(asyncio::open_unix_connection(nginx->path(), options));
        EXPECT_TRUE(opened.failed_with<ssl::Error>()) << failure_of(opened);
        // And the other way about.
        auto streams = co_await asyncio::open_connection("127.0.0.1", nginx->port);
        const std::string body = co_await get(streams.first, streams.second, "/");
        EXPECT_EQ(body, "HTTP/1.1 400 Bad Request");
        streams.second.close();
        co_await streams.second.wait_closed();
    });
}

} // namespace
