# SPDX-License-Identifier: MIT
#
# asyncio_own_code(target): what we ask of code of our own (library, tests, examples, benchmarks)
# and never of a user's: no language extensions, strict warnings, and sanitizers if a build has them.

set(asyncio_warnings
    -Wall -Wextra -Wpedantic
    -Wcast-align -Wcast-qual -Wconversion -Wdouble-promotion -Wextra-semi -Wformat=2
    -Wimplicit-fallthrough -Wold-style-cast
    -Woverloaded-virtual -Wshadow -Wsign-conversion -Wundef -Wunused -Wvla)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    list(APPEND asyncio_warnings -Wduplicated-cond -Wlogical-op -Wsuggest-override)
else()
    # For GCC a friend of the class makes a protected destructor accessible, and a coroutine's body
    # has a null pointer written as zero; so these two are Clang's.
    list(APPEND asyncio_warnings -Winconsistent-missing-override -Wloop-analysis -Wnon-virtual-dtor
         -Wzero-as-null-pointer-constant)
endif()
if(ASYNCIO_WERROR)
    list(APPEND asyncio_warnings -Werror)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND ASYNCIO_SANITIZE)
        # GCC's manual: sanitizers make flow warnings come out wrong.
        list(APPEND asyncio_warnings -Wno-error=maybe-uninitialized -Wno-error=null-dereference
             -Wno-error=stringop-overflow -Wno-error=array-bounds)
    endif()
endif()

set(asyncio_sanitize_options "")
if(ASYNCIO_SANITIZE)
    set(asyncio_sanitize_options -fsanitize=${ASYNCIO_SANITIZE} -fno-omit-frame-pointer
        -fno-sanitize-recover=all)
    if(ASYNCIO_SANITIZE MATCHES "undefined")
        # It looks at an object through a pipe, and takes it for broken when no descriptor is left.
        list(APPEND asyncio_sanitize_options -fno-sanitize=vptr)
    endif()
endif()
if(ASYNCIO_FUZZ)
    # So that libFuzzer sees which ways an input takes through the library.
    list(APPEND asyncio_sanitize_options -fsanitize=fuzzer-no-link)
endif()

function(asyncio_own_code target)
    target_compile_features(${target} PUBLIC cxx_std_20)
    set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF)
    target_compile_options(${target} PRIVATE ${asyncio_warnings} ${asyncio_sanitize_options})
    target_link_options(${target} PRIVATE ${asyncio_sanitize_options})
endfunction()
