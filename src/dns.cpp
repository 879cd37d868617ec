// SPDX-License-Identifier: MIT
#include <asyncio/detail/thread_pool.hpp>
#include <asyncio/dns.hpp>

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <charconv>
#include <deque>
#include <memory>
#include <string_view>
#include <unordered_map>

ASYNCIO_BEGIN_NAMESPACE
namespace {

class GaiCategory final : public std::error_category {
  public:
    const char* name() const noexcept override { return "getaddrinfo"; }
    std::string message(int code) const override { return ::gai_strerror(code); }
    std::error_condition default_error_condition(int code) const noexcept override {
        switch (code) {
        case EAI_AGAIN:
            return std::errc::resource_unavailable_try_again;
        case EAI_MEMORY:
            return std::errc::not_enough_memory;
        case EAI_FAMILY:
            return std::errc::address_family_not_supported;
        default:
            return {code, *this};
        }
    }
};

// Of use until the process has ended, also to threads that outlive main(): never destroyed.
union EverlastingCategory {
    GaiCategory category{};
    EverlastingCategory() noexcept {}
    ~EverlastingCategory() {} // NOLINT
};

// "(Connection refused)", since the text of EAI_SYSTEM says no more than "System error".
std::string with_errno(const std::string& what, int error_number) {
    if (error_number == 0) return what;
    return what + " (" + std::generic_category().message(error_number) + ")";
}

} // namespace

const std::error_category& gai_category() noexcept {
    static const EverlastingCategory everlasting;
    return everlasting.category;
}

GaiError::GaiError(int code, const std::string& what, int error_number)
    : std::system_error(code, gai_category(), with_errno(what, error_number)),
      error_number_(error_number) {}
GaiError::GaiError(const GaiError&) noexcept = default;
GaiError& GaiError::operator=(const GaiError&) noexcept = default;
GaiError::~GaiError() = default;

namespace detail {
namespace {

class LookupWait;
class Resolver;

// A question, and those of its loop that wait for the answer. Kept by them, by the resolver while
// it is not answered, and by the job: a thread may be the last to let go of it.
class Lookup {
  public:
    virtual ~Lookup() = default;
    Lookup(const Lookup&) = delete;
    Lookup& operator=(const Lookup&) = delete;

    // On a thread, and only there until it is done.
    void look_up() noexcept {
        try {
            errno = 0;
            code_ = ask();
            error_number_ = code_ == EAI_SYSTEM ? errno : 0;
        } catch (...) { // a function that a test has put into the table
            thrown_ = std::current_exception();
        }
    }

    // The rest is for the loop's thread.

    // Until it is done. A cancel ends the wait at once.
    LookupWait operator co_await() noexcept;
    // Requires: done. Throws what went wrong.
    void throw_if_failed() const {
        if (thrown_ != nullptr) std::rethrow_exception(thrown_);
        if (code_ != 0) throw GaiError(code_, text(), error_number_);
    }

  protected:
    Lookup() = default;

    // Returns 0 or an EAI_* number.
    virtual int ask() = 0;
    // "getaddrinfo for 'example.org'"
    virtual std::string text() const = 0;

  private:
    friend class LookupWait;
    friend class Resolver;

    enum State { fresh, queued, submitted, done };

    int code_ = 0;
    int error_number_ = 0;
    std::exception_ptr thrown_;

    State state_ = fresh;
    std::string key_;
    ThreadJob* job_ = nullptr; // while it is with the pool
    LookupWait* first_ = nullptr;
    LookupWait* last_ = nullptr;
};

// The look-ups of a loop. At most some of them are with the pool at a time, so that names which are
// slow to come leave it threads for other work.
class Resolver final : public LoopExtra {
  public:
    static Resolver& of(EventLoop& loop) {
        auto& resolver = loop.core().resolver;
        if (resolver == nullptr) resolver = std::make_unique<Resolver>(loop);
        return static_cast<Resolver&>(*resolver);
    }

    explicit Resolver(EventLoop& loop) : loop_(loop) {}

    // The look-up that is under way by this key; else the one that make() makes.
    template <class T, class Make> std::shared_ptr<T> find_or_start(std::string key, Make make) {
        const auto [entry, is_new] = lookups_.try_emplace(key);
        if (!is_new) return std::static_pointer_cast<T>(entry->second);
        try {
            std::shared_ptr<T> lookup = make();
            entry->second = lookup;
            lookup->key_ = std::move(key);
            start(lookup);
            return lookup;
        } catch (...) {
            lookups_.erase(entry);
            throw;
        }
    }

    // Nobody waits for it any more. One at which a thread works stays: whoever asks the same again,
    // after a time-out perhaps, has its answer sooner than that of another.
    void abandon(Lookup& lookup) noexcept;

  private:
    class Job;

    // How many may be with the pool.
    std::size_t limit() const {
        return std::max<std::size_t>(4, ThreadPool::of(loop_).limit() / 2);
    }
    void start(const std::shared_ptr<Lookup>& lookup);
    void submit(const std::shared_ptr<Lookup>& lookup);
    void start_next() noexcept;
    void finished(Lookup& lookup) noexcept;
    void answer(Lookup& lookup) noexcept;

    EventLoop& loop_;
    std::unordered_map<std::string, std::shared_ptr<Lookup>> lookups_;
    std::deque<Lookup*> queue_; // those that are not with the pool yet
    std::size_t submitted_ = 0;
};

class Resolver::Job final : public ThreadJob {
  public:
    Job(Resolver& resolver, std::shared_ptr<Lookup> lookup) noexcept
        : resolver_(resolver), lookup_(std::move(lookup)) {}

    void work() noexcept override { lookup_->look_up(); }
    void finished() override { resolver_.finished(*lookup_); }
    void let_go() noexcept override { lookup_->job_ = nullptr; }

  private:
    Resolver& resolver_;
    std::shared_ptr<Lookup> lookup_;
};

// A frame that waits for an answer.
class LookupWait final : public Operation {
  public:
    using AsyncioAwaiter = void;

    explicit LookupWait(Lookup& lookup) noexcept : lookup_(lookup) {}
    ~LookupWait() {
        if (is_linked_) leave(); // the frame is destroyed while it waits
    }
    LookupWait(const LookupWait&) = delete;
    LookupWait& operator=(const LookupWait&) = delete;

    bool await_ready() const noexcept { return false; }
    template <std::derived_from<PromiseBase> Promise>
    void await_suspend(std::coroutine_handle<Promise> frame,
                       std::source_location where = std::source_location::current()) noexcept {
        frame.promise().where = where;
        task_ = frame.promise().task;
        enter();
        task_->suspend(frame, *this);
    }
    void await_resume() const {
        if (task_->cancel_due()) task_->throw_cancelled();
    }

    CancelOutcome try_cancel() noexcept override {
        leave();
        return CancelOutcome::done_now;
    }
    void run() override {}

  private:
    friend class Resolver;

    void enter() noexcept {
        is_linked_ = true;
        previous_ = lookup_.last_;
        (previous_ != nullptr ? previous_->next_ : lookup_.first_) = this;
        lookup_.last_ = this;
        if (previous_ == nullptr) ++task_->loop().core().outside_jobs;
    }
    void leave() noexcept {
        is_linked_ = false;
        (previous_ != nullptr ? previous_->next_ : lookup_.first_) = next_;
        (next_ != nullptr ? next_->previous_ : lookup_.last_) = previous_;
        if (lookup_.first_ != nullptr) return;
        --task_->loop().core().outside_jobs;
        Resolver::of(task_->loop()).abandon(lookup_);
    }

    Lookup& lookup_;
    TaskBase* task_ = nullptr;
    LookupWait* next_ = nullptr;
    LookupWait* previous_ = nullptr;
    bool is_linked_ = false;
};

LookupWait Lookup::operator co_await() noexcept { return LookupWait(*this); }

void Resolver::start(const std::shared_ptr<Lookup>& lookup) {
    if (submitted_ < limit()) {
        submit(lookup);
    } else {
        queue_.push_back(lookup.get());
        lookup->state_ = Lookup::queued;
    }
}

void Resolver::submit(const std::shared_ptr<Lookup>& lookup) {
    auto job = std::make_unique<Job>(*this, lookup);
    lookup->job_ = job.get();
    ThreadPool::of(loop_).submit(std::move(job), ThreadPool::AtShutdown::leave);
    lookup->state_ = Lookup::submitted;
    ++submitted_;
}

void Resolver::start_next() noexcept {
    while (!queue_.empty() && submitted_ < limit()) {
        Lookup& lookup = *queue_.front();
        queue_.pop_front();
        try {
            submit(lookups_.find(lookup.key_)->second);
        } catch (...) {
            lookup.thrown_ = std::current_exception();
            answer(lookup);
        }
    }
}

void Resolver::finished(Lookup& lookup) noexcept {
    lookup.job_ = nullptr;
    --submitted_;
    answer(lookup);
    start_next();
}

void Resolver::answer(Lookup& lookup) noexcept {
    lookup.state_ = Lookup::done;
    if (lookup.first_ != nullptr) --loop_.core().outside_jobs;
    for (LookupWait* wait = std::exchange(lookup.first_, nullptr); wait != nullptr;
         wait = wait->next_) {
        wait->is_linked_ = false;
        wait->task_->wake();
    }
    lookups_.erase(lookup.key_);
}

void Resolver::abandon(Lookup& lookup) noexcept {
    if (lookup.state_ == Lookup::queued) {
        std::erase(queue_, &lookup);
    } else if (lookup.job_ != nullptr && ThreadPool::of(loop_).withdraw(*lookup.job_)) {
        lookup.job_ = nullptr;
        --submitted_;
    } else {
        return;
    }
    lookup.state_ = Lookup::fresh;
    lookups_.erase(lookup.key_);
    start_next();
}

// --- From names to addresses ---

class AddressLookup final : public Lookup {
  public:
    AddressLookup(const SystemCalls& calls, std::string host, std::string service,
                  const GetAddrInfoOptions& options)
        : getaddrinfo_(calls.getaddrinfo), freeaddrinfo_(calls.freeaddrinfo),
          host_(std::move(host)), service_(std::move(service)), hints_{} {
        hints_.ai_family = options.family();
        hints_.ai_socktype = options.type();
        hints_.ai_protocol = options.protocol();
        hints_.ai_flags = options.flags();
    }
    ~AddressLookup() override {
        if (found_ != nullptr) freeaddrinfo_(found_);
    }

    std::vector<AddressInfo> result() const {
        throw_if_failed();
        std::vector<AddressInfo> all;
        for (const addrinfo* one = found_; one != nullptr; one = one->ai_next) {
            all.emplace_back(one->ai_family, one->ai_socktype, one->ai_protocol,
                             Address(one->ai_addr, one->ai_addrlen),
                             one->ai_canonname != nullptr ? one->ai_canonname : "");
        }
        return all;
    }

  private:
    int ask() override {
        const int code =
            getaddrinfo_(host_.empty() ? nullptr : host_.c_str(),
                         service_.empty() ? nullptr : service_.c_str(), &hints_, &found_);
        if (code != 0) found_ = nullptr;
        return code == 0 && found_ == nullptr ? EAI_NONAME : code;
    }
    std::string text() const override;

    // Not the table, which may be gone when the thread comes to its end.
    int (*getaddrinfo_)(const char*, const char*, const addrinfo*, addrinfo**);
    void (*freeaddrinfo_)(addrinfo*);
    std::string host_;
    std::string service_;
    addrinfo hints_;
    addrinfo* found_ = nullptr;
};

bool is_number(std::string_view text) noexcept {
    return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

std::string AddressLookup::text() const {
    std::string text = "getaddrinfo for ";
    if (host_.empty() && service_.empty()) return text + "neither a host nor a service";
    if (!host_.empty()) text += "'" + host_ + "'";
    if (service_.empty() || (is_number(service_) && !host_.empty())) return text;
    return text + (host_.empty() ? "" : ", ") + "service '" + service_ + "'";
}

bool is_numeric_address(const std::string& host) noexcept {
    in6_addr unused;
    if (::inet_pton(AF_INET, host.c_str(), &unused) == 1) return true;
    char before_scope[INET6_ADDRSTRLEN] = "";
    const std::size_t size = std::min(host.find('%'), host.size());
    if (size >= sizeof before_scope) return false;
    std::copy_n(host.data(), size, before_scope);
    return ::inet_pton(AF_INET6, before_scope, &unused) == 1;
}

// Throws ValueError for what is no question.
void check_question(const std::string& host, const std::string& service) {
    constexpr std::size_t longest = 253; // of RFC 1035's 255, without the length of the root
    if (host.find('\0') != std::string::npos) {
        throw ValueError("a host name must not contain a zero byte; this one goes on after '" +
                         std::string(host.c_str()) + "'");
    }
    if (host.size() > longest + (host.ends_with('.') ? 1 : 0)) {
        throw ValueError("a host name has at most 253 bytes, and this one has " +
                         std::to_string(host.size()) + ": '" + host.substr(0, 60) + "...'");
    }
    if (service.find('\0') != std::string::npos) {
        throw ValueError("the name of a service must not contain a zero byte; this one goes on "
                         "after '" +
                         std::string(service.c_str()) + "'");
    }
    const std::string_view digits = std::string_view(service).substr(service.starts_with('-'));
    if (!is_number(digits)) return;
    std::uint16_t port = 0;
    const char* end = service.data() + service.size();
    if (const auto [stopped, error] = std::from_chars(service.data(), end, port);
        error != std::errc() || stopped != end) {
        throw ValueError("a port is a number from 0 to 65535, and not " + service);
    }
}

// What is answered from the text alone.
bool is_answered_at_once(const std::string& host, const std::string& service,
                         const GetAddrInfoOptions& options) noexcept {
    if (!service.empty() && !is_number(service)) return false;
    return host.empty() || (options.flags() & AI_NUMERICHOST) != 0 || is_numeric_address(host);
}

std::vector<AddressInfo> addresses_at_once(const std::string& host, const std::string& service,
                                           const GetAddrInfoOptions& options) {
    AddressLookup lookup(SystemCalls::real(), host, service, options);
    lookup.look_up();
    return lookup.result();
}

template <class T> void append_bytes(std::string& key, const T& value) {
    key.append(reinterpret_cast<const char*>(&value), sizeof value);
}

std::shared_ptr<AddressLookup> look_up_addresses(std::string host, std::string service,
                                                 const GetAddrInfoOptions& options) {
    EventLoop& loop = get_running_loop();
    std::string key = "a";
    append_bytes(key, options.family());
    append_bytes(key, options.type());
    append_bytes(key, options.protocol());
    append_bytes(key, options.flags());
    key.append(host).append(1, '\0').append(service);
    return Resolver::of(loop).find_or_start<AddressLookup>(std::move(key), [&] {
        return std::make_shared<AddressLookup>(loop.backend().calls(), std::move(host),
                                               std::move(service), options);
    });
}

// --- And back ---

class NameLookup final : public Lookup {
  public:
    NameLookup(const SystemCalls& calls, const Address& address, int flags) noexcept
        : getnameinfo_(calls.getnameinfo), address_(address), flags_(flags) {}

    NameInfo result() const {
        throw_if_failed();
        return NameInfo(host_, service_);
    }

  private:
    int ask() override {
        return getnameinfo_(address_.data(), address_.size(), host_, sizeof host_, service_,
                            sizeof service_, flags_);
    }
    std::string text() const override { return "getnameinfo for " + address_.text(); }

    int (*getnameinfo_)(const sockaddr*, socklen_t, char*, socklen_t, char*, socklen_t, int);
    Address address_;
    int flags_;
    char host_[NI_MAXHOST] = "";
    char service_[NI_MAXSERV] = "";
};

NameInfo names_at_once(const Address& address, int flags) {
    NameLookup lookup(SystemCalls::real(), address, flags);
    lookup.look_up();
    return lookup.result();
}

std::shared_ptr<NameLookup> look_up_names(const Address& address, int flags) {
    EventLoop& loop = get_running_loop();
    std::string key = "n";
    append_bytes(key, flags);
    key.append(reinterpret_cast<const char*>(address.data()), address.size());
    return Resolver::of(loop).find_or_start<NameLookup>(std::move(key), [&] {
        return std::make_shared<NameLookup>(loop.backend().calls(), address, flags);
    });
}

} // namespace
} // namespace detail

Coro<std::vector<AddressInfo>> getaddrinfo(std::string host, std::string service,
                                           GetAddrInfoOptions options) {
    detail::check_question(host, service);
    if (detail::is_answered_at_once(host, service, options)) {
        co_return detail::addresses_at_once(host, service, options);
    }
    const auto lookup = detail::look_up_addresses(std::move(host), std::move(service), options);
    co_await *lookup;
    co_return lookup->result();
}

Coro<std::vector<AddressInfo>> getaddrinfo(std::string host, int port, GetAddrInfoOptions options) {
    return getaddrinfo(std::move(host), std::to_string(port), options);
}

Coro<NameInfo> getnameinfo(Address address, int flags) {
    constexpr int numeric = NI_NUMERICHOST | NI_NUMERICSERV;
    if ((flags & numeric) == numeric) co_return detail::names_at_once(address, flags);
    const auto lookup = detail::look_up_names(address, flags);
    co_await *lookup;
    co_return lookup->result();
}

ASYNCIO_END_NAMESPACE
