// SPDX-License-Identifier: MIT
#include <asyncio/contextvars.hpp>

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

const std::shared_ptr<const void>* find_variable(std::uint64_t variable) noexcept {
    const auto* variables = static_cast<const Variables*>(current_context().get());
    if (variables == nullptr) return nullptr;
    for (const Variables::Entry& entry : variables->entries) {
        if (entry.variable == variable) return &entry.value;
    }
    return nullptr;
}

std::uint64_t new_variable() noexcept {
    static constinit std::atomic<std::uint64_t> last = 0;
    return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

void set_variable(std::uint64_t variable, std::shared_ptr<const void> value) {
    ContextRef& context = current_context();
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

void throw_lookup_error(const std::string& name) {
    throw LookupError("the context variable '" + name + "' has no value and no default");
}

} // namespace detail
ASYNCIO_END_NAMESPACE
