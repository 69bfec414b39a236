# Compiler settings that every part shares.

add_compile_definitions(_GNU_SOURCE _FILE_OFFSET_BITS=64)
add_compile_options(-Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
                    -Wpointer-arith -Wwrite-strings -Wundef -Wformat=2)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
  # gcc cannot know that imgtk_fail() never returns 0, and so takes every result behind an early return for unset.
  # The sanitizers and valgrind look for the real ones.
  add_compile_options(-Wno-maybe-uninitialized)
endif()
if(IMGTK_WERROR)
  add_compile_options(-Werror)
endif()
if(IMGTK_COVERAGE)
  add_compile_definitions(IMGTK_COVERAGE)
  add_compile_options(--coverage)
  add_link_options(--coverage)
endif()
if(IMGTK_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
if(IMGTK_SANITIZE)
  add_compile_options(-fsanitize=${IMGTK_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${IMGTK_SANITIZE})
  if(CMAKE_C_COMPILER_ID STREQUAL "GNU" AND IMGTK_SANITIZE STREQUAL "address,undefined")
    # Undefined behaviour ends in an illegal instruction, which the address sanitizer reports (handle_sigill). Its own
    # library would double what a program's start and the search for leaks at its end take.
    add_compile_options(-fsanitize-undefined-trap-on-error)
    add_link_options(-fsanitize-undefined-trap-on-error)
  endif()
else()
  # Hardening for what ships; the sanitizers bring their own.
  add_compile_options(-fstack-protector-strong -fstack-clash-protection)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|i.86")
    add_compile_options(-fcf-protection)
  endif()
  if(CMAKE_BUILD_TYPE MATCHES "Release|RelWithDebInfo")
    add_compile_options(-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
    # The same bytes wherever they are built.
    add_compile_options(-ffile-prefix-map=${PROJECT_SOURCE_DIR}=. -ffile-prefix-map=${PROJECT_BINARY_DIR}=.)
  endif()
  add_link_options(-Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack)
  # A package depends on the libraries that are called, not on all that are named.
  add_link_options(-Wl,--as-needed)
endif()
