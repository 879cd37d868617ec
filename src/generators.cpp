// SPDX-License-Identifier: MIT
#include <asyncio/as_result.hpp>
#include <asyncio/generators.hpp>
#include <asyncio/runners.hpp>

#include <vector>

ASYNCIO_BEGIN_NAMESPACE

GeneratorExit::GeneratorExit() noexcept = default;
GeneratorExit::GeneratorExit(const GeneratorExit&) noexcept = default;
GeneratorExit& GeneratorExit::operator=(const GeneratorExit&) noexcept = default;
GeneratorExit::~GeneratorExit() = default;
const char* GeneratorExit::what() const noexcept { return "GeneratorExit"; }

namespace detail {

// Those of a loop that have begun and not ended.
class GeneratorsLeft final : public ShutdownStep {
  public:
    GeneratorsLeft() = default;
    ~GeneratorsLeft() override {
        while (first_ != nullptr) first_->unlink();
    }
    GeneratorsLeft(const GeneratorsLeft&) = delete;
    GeneratorsLeft& operator=(const GeneratorsLeft&) = delete;

    static GeneratorsLeft* of(EventLoop& loop) noexcept {
        return static_cast<GeneratorsLeft*>(loop.core().shutdown_steps[shutdown_asyncgens].get());
    }
    static void link(EventLoop& loop, GeneratorBase& generator) {
        auto& step = loop.core().shutdown_steps[shutdown_asyncgens];
        if (step == nullptr) step = std::make_unique<GeneratorsLeft>();
        GeneratorBase*& first = static_cast<GeneratorsLeft&>(*step).first_;
        generator.next_ = first;
        if (first != nullptr) first->link_ = &generator.next_;
        generator.link_ = &first;
        first = &generator;
    }

    // In the order in which they began.
    std::vector<GeneratorBase*> all() const {
        std::vector<GeneratorBase*> generators;
        for (GeneratorBase* one = first_; one != nullptr; one = one->next_) {
            generators.insert(generators.begin(), one);
        }
        return generators;
    }
    bool contains(const GeneratorBase* generator) const noexcept {
        for (const GeneratorBase* one = first_; one != nullptr; one = one->next_) {
            if (one == generator) return true;
        }
        return false;
    }

    static void end_close(const GeneratorPromiseBase* yielded, std::exception_ptr thrown) {
        GeneratorBase::end_close(yielded, std::move(thrown));
    }

    void shut_down(EventLoop& loop) override {
        if (first_ != nullptr) run_until_complete(loop, asyncio::shutdown_asyncgens());
    }

  private:
    GeneratorBase* first_ = nullptr;
};

GeneratorPromiseBase::~GeneratorPromiseBase() {
    if (owner == nullptr) return;
    owner->unlink();
    owner->frame_ = nullptr;
}

GeneratorBase& GeneratorBase::operator=(GeneratorBase&& other) noexcept {
    if (this != &other) {
        drop();
        take(other);
    }
    return *this;
}

void GeneratorBase::take(GeneratorBase& other) noexcept {
    frame_ = std::exchange(other.frame_, nullptr);
    state_ = other.state_;
    next_ = std::exchange(other.next_, nullptr);
    link_ = std::exchange(other.link_, nullptr);
    if (frame_) promise().owner = this;
    if (link_ != nullptr) *link_ = this;
    if (next_ != nullptr) next_->link_ = &next_;
}

void GeneratorBase::drop() noexcept {
    if (!frame_) return;
    unlink();
    promise().owner = nullptr;
    // While the body runs, whoever awaits it destroys the frame.
    if (state_ != running) frame_.destroy();
    frame_ = nullptr;
}

void GeneratorBase::unlink() noexcept {
    if (link_ == nullptr) return;
    *link_ = next_;
    if (next_ != nullptr) next_->link_ = link_;
    next_ = nullptr;
    link_ = nullptr;
}

bool GeneratorBase::ready_to_run(bool closes) {
    if (!frame_) return false;
    switch (state_) {
    case running:
        throw RuntimeError(std::string(closes ? "aclose()" : "next()") +
                           ": the asynchronous generator is already running: another task awaits "
                           "it; wait for that one first");
    case created:
        if (closes) {
            drop();
            return false;
        }
        GeneratorsLeft::link(get_running_loop(), *this);
        return true;
    case suspended:
        break;
    }
    return true;
}

void GeneratorBase::end_close(const GeneratorPromiseBase* yielded, std::exception_ptr thrown) {
    if (yielded != nullptr) {
        throw RuntimeError("the asynchronous generator ignored GeneratorExit: it must not co_yield "
                           "while it is closed");
    }
    if (thrown == nullptr) return;
    try {
        std::rethrow_exception(std::move(thrown));
    } catch (const GeneratorExit&) { // NOLINT(bugprone-empty-catch): as it should end
    }
}

GeneratorPromiseBase* GeneratorBase::Step::finish(std::exception_ptr& thrown) noexcept {
    if (!frame_) return nullptr;
    const std::coroutine_handle<> frame = std::exchange(frame_, nullptr);
    auto& promise = static_cast<GeneratorPromiseBase&>(promise_of(frame));
    if (promise.task->has_thrown()) thrown = promise.task->take_thrown();
    if (frame.done() || promise.owner == nullptr) {
        frame.destroy();
        return nullptr;
    }
    promise.owner->state_ = suspended;
    return &promise;
}

namespace {

class CloseAny final : public GeneratorBase::Step {
  public:
    explicit CloseAny(GeneratorBase& generator) noexcept : Step(generator, true) {}
    void await_resume() {
        std::exception_ptr thrown;
        const GeneratorPromiseBase* yielded = finish(thrown);
        GeneratorsLeft::end_close(yielded, std::move(thrown));
    }
};

// Closing one may have ended another.
Coro<> close_if_left(GeneratorBase* generator) {
    EventLoop& loop = get_running_loop();
    const GeneratorsLeft* left = GeneratorsLeft::of(loop);
    if (left == nullptr || !left->contains(generator)) co_return;
    std::exception_ptr failure;
    try {
        co_await CloseAny(*generator);
    } catch (const CancelledError&) {
        throw;
    } catch (...) {
        failure = std::current_exception();
    }
    if (failure == nullptr) co_return;
    loop.call_exception_handler({
        .message = "an error occurred during closing of an asynchronous generator",
        .exception = failure,
    });
}

} // namespace
} // namespace detail

Coro<> shutdown_asyncgens() {
    const detail::GeneratorsLeft* left = detail::GeneratorsLeft::of(get_running_loop());
    if (left == nullptr) co_return;
    std::vector<Task<>> closing;
    for (detail::GeneratorBase* generator : left->all()) {
        closing.push_back(create_task(detail::close_if_left(generator)));
    }
    for (const Task<>& task : closing) {
        const auto ended = co_await as_result(task);
        static_cast<void>(ended);
    }
}

ASYNCIO_END_NAMESPACE
