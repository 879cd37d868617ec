// SPDX-License-Identifier: MIT
//
// The sanitizers' options, built into the program, so that they hold however it is started. Each
// runtime asks for its own function; a build without it has one that nobody calls.

extern "C" {
const char* __asan_default_options();
const char* __ubsan_default_options();
const char* __tsan_default_options();

const char* __asan_default_options() {
    return "detect_stack_use_after_return=1:strict_string_checks=1:check_initialization_order=1:"
           "print_legend=0";
}
const char* __ubsan_default_options() { return "print_stacktrace=1"; }
const char* __tsan_default_options() { return "halt_on_error=1:second_deadlock_stack=1"; }
}
