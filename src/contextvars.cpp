// SPDX-License-Identifier: MIT
#include <asyncio/contextvars.hpp>
#include <asyncio/detail/task_state.hpp>

#include <atomic>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE

LookupError::LookupError(const LookupError&) noexcept = default;
LookupError& LookupError::operator=(const LookupError&) noexcept = default;
LookupError::~LookupError() = default;

namespace detail {
namespace {

// Programs have a handful of variables: a list, copied at each set, is small and fast to search.
class Variables final : public ContextMap {
  public:
    struct Entry {
        std::uint64_t variable;
        std::shared_ptr<const void> value;
    };
    std::vector<Entry> entries;
};

} // namespace

const std::shared_ptr<const void>* find_variable(const ContextRef& context,
                                                 std::uint64_t variable) noexcept {
    const auto* variables = static_cast<const Variables*>(context.get());
    if (variables == nullptr) return nullptr;
    for (const Variables::Entry& entry : variables->entries) {
        if (entry.variable == variable) return &entry.value;
    }
    return nullptr;
}

namespace {

ContextRef& current_variables() noexcept {
    ContextRef& context = current_context();
    ContextBox* box = context.box();
    return box != nullptr ? box->variables : context;
}

} // namespace

const std::shared_ptr<const void>* find_variable(std::uint64_t variable) noexcept {
    return find_variable(current_variables(), variable);
}

std::uint64_t new_variable() noexcept {
    static constinit std::atomic<std::uint64_t> last = 0;
    return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

void set_variable(std::uint64_t variable, std::shared_ptr<const void> value) {
    ContextRef& context = current_variables();
    auto* changed = new Variables();
    ContextRef owner(changed);
    if (const auto* old = static_cast<const Variables*>(context.get())) {
        changed->entries.reserve(old->entries.size() + 1);
        for (const Variables::Entry& entry : old->entries) {
            if (entry.variable != variable) changed->entries.push_back(entry);
        }
    }
    if (value != nullptr) changed->entries.push_back({variable, std::move(value)});
    context.swap(owner);
}

// Tasks have numbers already: theirs are the even ones.
std::uint64_t current_context_id() noexcept {
    EventLoop* loop = get_running_loop_or_null();
    if (const ContextBox* box = current_context().box()) return box->id;
    if (loop != nullptr && loop->core().current_task != nullptr)
        return loop->core().current_task->number() * 2;
    OwnContext& own = loop != nullptr && loop->core().callback != nullptr ? *loop->core().callback
                                                                          : context_of_thread();
    if (own.id == 0) own.id = new_variable() * 2 + 1;
    return own.id;
}

void throw_lookup_error(const std::string& name) {
    throw LookupError("the context variable '" + name + "' has no value and no default");
}

void throw_not_in_context(const std::string& name) {
    throw LookupError("the context variable '" + name +
                      "' has no value in this context (its default, if it has one, is not in it)");
}

TokenBase::TokenBase(std::uint64_t variable, std::shared_ptr<const void> value)
    : variable_(variable), context_(current_context_id()) {
    if (const auto* old = find_variable(variable)) old_ = *old;
    set_variable(variable, std::move(value));
}

TokenBase::~TokenBase() = default;

void TokenBase::reset(std::uint64_t variable) {
    if (used_) throw RuntimeError("the token has already been used once");
    if (variable_ != variable) throw ValueError("the token was created by a different ContextVar");
    if (context_ != current_context_id())
        throw ValueError("the token was created in a different Context: reset() belongs in the "
                         "task or callback that called set()");
    set_variable(variable_, old_);
    used_ = true;
}

void TokenBase::try_reset() noexcept {
    if (used_ || context_ != current_context_id()) return;
    used_ = true;
    try {
        set_variable(variable_, std::move(old_));
    } catch (const std::bad_alloc&) {
        EventLoop::report(get_running_loop_or_null(), [] {
            return ExceptionContext{.message = "no memory to reset a context variable"};
        });
    }
}

ContextRef ref_of(const Context& context) noexcept { return context.ref(); }

} // namespace detail

Context::Context(detail::ContextRef variables)
    : box_(new detail::ContextBox(std::move(variables), detail::new_variable() * 2 + 1)) {}

Context Context::of(detail::ContextBox& box) noexcept {
    box.retain();
    return {detail::ContextRef(&box), Named()};
}

std::size_t Context::size() const noexcept {
    const auto* variables = static_cast<const detail::Variables*>(box_.box()->variables.get());
    return variables != nullptr ? variables->entries.size() : 0;
}

Context::Entered::Entered(detail::ContextBox& box) : current_(detail::current_context()) {
    if (box.displaced || current_.get() == &box) {
        throw RuntimeError("cannot enter context: something runs in it already; enter a copy()");
    }
    if (detail::ContextBox* outer = current_.box()) outer->displaced = true;
    box.retain();
    outer_ = std::exchange(current_, detail::ContextRef(&box));
    // The first one that is entered in a step puts the task's own context aside.
    EventLoop* loop = get_running_loop_or_null();
    if (loop == nullptr || loop->core().own_context != nullptr) return;
    core_ = &loop->core();
    core_->own_context = &outer_;
}

Context::Entered::~Entered() {
    if (core_ != nullptr) core_->own_context = nullptr;
    current_ = std::move(outer_);
    if (detail::ContextBox* outer = current_.box()) outer->displaced = false;
}

Context copy_context() { return Context(detail::current_context().variables()); }

ASYNCIO_END_NAMESPACE
